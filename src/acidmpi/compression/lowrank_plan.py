"""What a low-rank step is, which steps follow each other, and which matrices take part."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from acidmpi.arrays.flat import wide_dtype
from acidmpi.compression.protocol import Spec


class Kind(Enum):
    """What the messages of one step hold of each matrix M."""

    DENSE = "M"
    BOTH = "P = M Q, then Q = Mᵀ P"
    LEFT = "P = M Q"
    RIGHT = "Q = Mᵀ P"


class Form(NamedTuple):
    """A parameter as a matrix in C order, and the width of its factors."""

    rows: int
    columns: int
    width: int
    """0: it is not compressed."""

    dtype: np.dtype[np.floating]
    """That of its arithmetic and of its messages."""

    def factor_rows(self, kind: Kind) -> int:
        """Of P (`LEFT`) or of Q (`RIGHT`)."""
        return self.rows if kind is Kind.LEFT else self.columns

    def message_bytes(self, kind: Kind) -> int:
        """Bytes that this matrix puts into the messages of such a step."""
        dense = self.rows * self.columns
        elements = {
            Kind.DENSE: dense,
            Kind.BOTH: (self.rows + self.columns) * self.width,
            Kind.LEFT: self.rows * self.width,
            Kind.RIGHT: self.columns * self.width,
        }
        return (elements[kind] if self.width else dense) * self.dtype.itemsize


def forms_of(
    specs: Sequence[Spec], matrix_rank: int, pays: Callable[[int, int, int], bool]
) -> list[Form]:
    """Parameters as matrices.

    Args:
        specs: the parameters.
        matrix_rank: the greatest width of a factor.
        pays: whether to compress a matrix of so many rows and columns with factors of
            that width.
    """
    return [_form(spec, matrix_rank, pays) for spec in specs]


def _form(spec: Spec, matrix_rank: int, pays: Callable[[int, int, int], bool]) -> Form:
    rows = spec.shape[0] if spec.shape else 1
    columns = int(np.prod(spec.shape[1:], dtype=np.int64))
    width = min(matrix_rank, rows, columns)
    compressed = len(spec.shape) > 1 and width > 0 and pays(rows, columns, width)
    return Form(rows, columns, width if compressed else 0, wide_dtype(spec.dtype))


class Plan(NamedTuple):
    """A method: `opening` says how its first steps are and how many, then comes `cycle`."""

    name: str
    cycle: tuple[Kind, ...]
    opening: tuple[Kind, int]
    error_feedback: bool
    warm_start: bool

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """By phase: those of the cycle, then the opening's, if there is one."""
        kind, steps = self.opening
        return (*self.cycle, kind) if steps else self.cycle

    def phase(self, step: int) -> int:
        """See `protocol.Reduction`."""
        _, steps = self.opening
        if step < steps:
            return len(self.cycle)
        return (step - steps) % len(self.cycle)

    def ends_opening(self, step: int) -> bool:
        """Whether the cycle begins with the next step."""
        return step + 1 == self.opening[1]
