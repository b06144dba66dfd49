"""All elements, in full or rounded to 16 bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from acidmpi.compression.codecs import Moment, dealt
from acidmpi.compression.options import check_choice
from acidmpi.compression.packing import brain, half, widen
from acidmpi.compression.protocol import Array, Place, Reduction, Spec, State, Work
from acidmpi.compression.reductions import Dense, TwoPhase

CastName = Literal["float16", "bfloat16"]


@dataclass(frozen=True)
class NoCompression:
    """The mean of all elements.

    float64 and float32 are summed by MPI. MPI cannot sum 16-bit floats, so they travel
    in two phases: float32 sums of chunks, rounded once.
    """

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "none"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        return _ByType(self.name, specs, place)


@dataclass(frozen=True)
class Cast:
    """All elements rounded to 16 bits, summed in float32, rounded again.

    float16 keeps 11 significant bits between 6e-5 and 65504; beyond, finite numbers
    become 65504 with their sign, so that no infinity is made. bfloat16 keeps 8
    significant bits over the range of float32. Rounding is to nearest: there is no
    error feedback.
    """

    dtype: CastName = "float16"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, ("float16", "bfloat16"))

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "fp16" if self.dtype == "float16" else "bf16"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        return TwoPhase(self.name, SixteenBits(self.dtype), specs, place)


class SixteenBits:
    """Rows of float16 or bfloat16, which travel as uint16."""

    def __init__(self, dtype: CastName) -> None:
        self._encode = half if dtype == "float16" else brain
        self._dtype = np.dtype(np.float16 if dtype == "float16" else np.uint16)

    def columns(self, size: int, ranks: int) -> int:
        """See `codecs.RowCodec`; a row is whole words of 4 bytes."""
        return dealt(size, ranks, 2)

    def encode(self, rows: Array, valid: int, moment: Moment) -> Array:
        """See `codecs.RowCodec`."""
        return self._encode(rows).view(np.uint16)

    def decode(self, code: Array, columns: int, dtype: np.dtype[np.floating]) -> Array:
        """See `codecs.RowCodec`."""
        return widen(code.view(self._dtype)).astype(dtype, copy=False)

    def row_bytes(self, columns: int, itemsize: int) -> int:
        """See `codecs.RowCodec`."""
        return 2 * columns


class _ByType:
    """Parameters by their types: 16 bits in two phases, the others in one."""

    phases = 1

    def __init__(self, name: str, specs: Sequence[Spec], place: Place) -> None:
        self._dtypes = [np.dtype(spec.dtype) for spec in specs]
        half_wide = (
            (np.float16, SixteenBits("float16")),
            (np.uint16, SixteenBits("bfloat16")),
        )
        self._wide = Dense(name, specs, place)
        self._narrow = {
            np.dtype(dtype): TwoPhase(name, codec, specs, place)
            for dtype, codec in half_wide
        }

    @property
    def stages(self) -> int:
        """Two as soon as there is a 16-bit parameter."""
        return max(
            (self._reduction(i).stages for i in range(len(self._dtypes))), default=1
        )

    def phase(self, step: int) -> int:
        """All steps are alike."""
        return 0

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `protocol.Reduction`."""
        return self._reduction(index).payload_bytes(index, phase)

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """See `protocol.Reduction`."""
        return self._reduction(indices[0]).reduce(indices, gradients, step)

    def state(self) -> State:
        """See `protocol.Reduction`."""
        return self._wide.state()

    def load(self, states: Sequence[State]) -> None:
        """See `protocol.Reduction`."""
        self._wide.load(states)

    def _reduction(self, index: int) -> Dense | TwoPhase:
        return self._narrow.get(self._dtypes[index], self._wide)
