"""Buckets sorted by shape, and messages that hold many factors one behind the other."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.blas import dgemm, sgemm

from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.lowrank_plan import Form, Kind
from acidmpi.compression.packing import narrow, widen
from acidmpi.compression.protocol import Array
from acidmpi.errors import ConfigError

BAND_ELEMENTS = 1 << 20
"""Of a matrix that is changed while no other Python thread can run: some milliseconds."""


class Cell(NamedTuple):
    """One matrix and its gradient."""

    form: Form
    parameter: int
    gradient: Array


class Bucket(NamedTuple):
    """The gradients of one reduction."""

    dtype: np.dtype[np.floating]
    loose: list[Array]
    """Not compressed."""
    groups: list[list[Cell]]
    """Matrices of one form each, in the order of the bucket."""

    xp: Any
    """The module that the gradients' arrays are from: NumPy, or one that works like it."""

    @property
    def cells(self) -> list[Cell]:
        """All matrices, group by group."""
        return [cell for group in self.groups for cell in group]

    def shapes(self, kind: Kind) -> list[tuple[int, int, int]]:
        """Of the stacks of left (`LEFT`: P) or right factors, by group."""
        return [
            (len(group), group[0].form.factor_rows(kind), group[0].form.width)
            for group in self.groups
        ]


def sort_out(
    forms: Sequence[Form], indices: Sequence[int], gradients: Sequence[Array]
) -> Bucket:
    """Put matrices of one form together.

    Raises:
        ConfigError: their types cannot share a message.
    """
    loose: list[Array] = []
    groups: dict[Form, list[Cell]] = {}
    for index, gradient in zip(indices, gradients, strict=True):
        form = forms[index]
        if form.width:
            groups.setdefault(form, []).append(Cell(form, index, gradient))
        else:
            loose.append(gradient)
    dtype = _common_dtype({forms[index].dtype for index in indices})
    return Bucket(dtype, loose, list(groups.values()), namespace_of(gradients[0]))


def _common_dtype(dtypes: set[np.dtype[np.floating]]) -> np.dtype[np.floating]:
    if len(dtypes) != 1:
        names = ", ".join(sorted(map(str, dtypes))) or "no gradient at all"
        raise ConfigError(
            f"gradients of one bucket are calculated in one type, got {names}; "
            "put each type into buckets of its own"
        )
    return dtypes.pop()


class Parcel:
    """One array: gradients as they are, then stacks of factors.

    Args:
        dtype: that of the array.
        gradients: copied, widened to `dtype`.
        shapes: of the stacks, which are left to the caller to fill.
        xp: the module that the array is from.
    """

    def __init__(
        self,
        dtype: np.dtype[np.floating],
        gradients: Sequence[Array],
        shapes: Sequence[tuple[int, int, int]],
        xp: Any = np,
    ) -> None:
        self._gradients = gradients
        sizes = [g.size for g in gradients] + [int(np.prod(shape)) for shape in shapes]
        self.array: Array = xp.empty(sum(sizes), dtype)
        bounds = accumulate(sizes, initial=0)
        cut = [self.array[start:stop] for start, stop in pairwise(bounds)]
        self.pieces = cut[: len(gradients)]
        stacks = cut[len(gradients) :]
        self.factors = [
            factor
            for stack, shape in zip(stacks, shapes, strict=True)
            for factor in stack.reshape(shape)
        ]
        for piece, gradient in zip(self.pieces, gradients, strict=True):
            piece[:] = widen(gradient)

    def deliver(self) -> None:
        """Write the gradients back."""
        for piece, gradient in zip(self.pieces, self._gradients, strict=True):
            narrow(piece, gradient)


def subtract_product(matrix: Array, left: Array, right: Array) -> None:
    """`matrix -= left @ right.T`, in one pass.

    BLAS adds to what is there, which NumPy's own product cannot. SciPy keeps the
    interpreter to itself in the meantime, so large matrices are cut into bands. What is
    not NumPy's takes two passes, and room for the product.

    Args:
        matrix: changed in place.
        left: as many rows as `matrix`.
        right: as many rows as `matrix` has columns. All three are C contiguous and of one
            type, float32 or float64: anything else would be copied, the result lost.
    """
    if namespace_of(matrix) is not np:
        matrix -= left @ right.T
        return
    multiply = sgemm if matrix.dtype == np.float32 else dgemm
    rows, columns = matrix.shape
    height = max(1, BAND_ELEMENTS // columns)
    for start in range(0, rows, height):
        band = slice(start, start + height)
        multiply(
            -1.0, right.T, left[band].T, 1.0, matrix[band].T, trans_a=1, overwrite_c=1
        )


def write_product(left: Array, right: Array, out: Array) -> None:
    """`left @ right.T` into `out`, one-dimensional and contiguous, rounded to its type."""
    if out.dtype == left.dtype:
        namespace_of(out).matmul(left, right.T, out=out.reshape(len(left), len(right)))
    else:
        narrow((left @ right.T).reshape(-1), out)
