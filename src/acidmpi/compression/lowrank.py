"""Low-rank compression: PowerSGD and ACP-SGD.

A gradient with more than one dimension is a matrix M of n = shape[0] rows, and becomes
P Qᵀ with P of n and Q of m columns of r numbers each, r = min(matrix_rank, n, m). P and Q
are linear in M once the other one is agreed on, so MPI can sum them. Both methods are
power iterations that go on from step to step: PowerSGD (Vogels, Karimireddy and Jaggi,
2019) makes P and Q in each step, in two messages of which the second waits for the first;
ACP-SGD (Zhang, Zhang, Shi, Chu and Li, 2023) makes P in one step, Q in the next.
Formulas, sizes and what differs from other implementations: docs/low_rank.md.

What has one dimension, and what would not get smaller, rides along uncompressed in the
same message. Arithmetic is in float32 (float64 for float64 parameters), also of 16-bit
gradients; so are the messages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from acidmpi.compression.lowrank_plan import Kind, Plan, forms_of
from acidmpi.compression.lowrank_reduction import LowRankReduction
from acidmpi.compression.options import check_flag, check_whole
from acidmpi.compression.protocol import Place, Reduction, Spec
from acidmpi.errors import ConfigError


@dataclass(frozen=True)
class PowerSGD:
    """One step of power iteration for each gradient, in two messages.

    Raises:
        ConfigError: an option is out of its range.
    """

    matrix_rank: int = 4
    """Columns of a factor: what is sent, and how closely a mean is followed, grow with
    it. 4 for convolutions and 32 for transformers were used by the authors of ACP-SGD."""

    start_step: int = 1
    """Steps before this one are uncompressed. The mean of the last of them gives the
    first factors, so one is enough for both methods to begin well. More of them help
    where gradients change wildly at first; they cost what no compression costs."""

    min_compression_rate: float = 2.0
    """A matrix is compressed if it has more than this many times the elements of its
    factors; 0 compresses all."""

    error_feedback: bool = True
    """Whether what a step leaves out is added to the next gradient. Without it, a mean
    that is not of low rank is never reached."""

    warm_start: bool = True
    """Whether iterations go on from the last step's factor, or begin with a new random
    one, the same on all ranks."""

    def __post_init__(self) -> None:
        _check(
            self.matrix_rank,
            self.start_step,
            self.min_compression_rate,
            self.error_feedback,
        )
        check_flag("warm_start", self.warm_start)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "powersgd"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        plan = Plan(
            self.name,
            cycle=(Kind.BOTH,),
            opening=(Kind.DENSE, self.start_step),
            error_feedback=self.error_feedback,
            warm_start=self.warm_start,
        )
        forms = forms_of(specs, self.matrix_rank, self._pays)
        return LowRankReduction(plan, forms, specs, place)

    def _pays(self, rows: int, columns: int, width: int) -> bool:
        return (rows + columns) * width * self.min_compression_rate < rows * columns


@dataclass(frozen=True)
class ACPSGD:
    """Half a step of power iteration for each gradient, in one message.

    It sends half of what PowerSGD sends and waits for one message, not for two in a row;
    the factors follow half as fast. Matrices of which `matrix_rank` would keep everything
    are not compressed.

    Raises:
        ConfigError: an option is out of its range.
    """

    matrix_rank: int = 4
    """Columns of a factor, as in `PowerSGD`."""

    start_step: int = 1
    """Steps before this one are uncompressed. The mean of the last of them gives the
    first factor. With 0, the first step is one of PowerSGD: half a step on a random
    factor would hold almost nothing of the gradient."""

    min_compression_rate: float = 1.0
    """A matrix is compressed if it has more than this many times the elements of a
    message, in the mean of both kinds of step. No message is larger than its matrix, so
    1 compresses all; 0 does as well."""

    error_feedback: bool = True
    """Whether what a step leaves out is added to the next gradient."""

    def __post_init__(self) -> None:
        _check(
            self.matrix_rank,
            self.start_step,
            self.min_compression_rate,
            self.error_feedback,
        )

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "acpsgd"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        dense = (Kind.DENSE, self.start_step)
        plan = Plan(
            self.name,
            cycle=(Kind.LEFT, Kind.RIGHT),
            opening=dense if self.start_step else (Kind.BOTH, 1),
            error_feedback=self.error_feedback,
            warm_start=True,
        )
        forms = forms_of(specs, self.matrix_rank, self._pays)
        return LowRankReduction(plan, forms, specs, place)

    def _pays(self, rows: int, columns: int, width: int) -> bool:
        message = (rows + columns) * width / 2
        whole = width == min(rows, columns)
        return not whole and message * self.min_compression_rate < rows * columns


def _check(matrix_rank: int, start_step: int, rate: float, feedback: bool) -> None:
    check_whole("matrix_rank", matrix_rank, 1)
    check_whole("start_step", start_step, 0)
    check_flag("error_feedback", feedback)
    if not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
        raise ConfigError(
            f"min_compression_rate must be a number of at least 0, got {rate!r}; "
            "use 0 to compress every matrix"
        )
