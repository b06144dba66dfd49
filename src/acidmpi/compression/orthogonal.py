"""Orthonormal bases of many tall matrices of one shape at once.

Each matrix of a stack is treated by itself: its result does not depend on its neighbours,
nor on their order. Columns of the result are orthonormal whatever comes in. A column that
depends on those before it, a zero column for one, is replaced by a fixed pseudo-random
direction, orthonormal to the others: power iteration would never leave a zero column, and
a unit vector could point at an input that is always dead.

The same bits come out for the same bits in, on one type of CPU and one build of NumPy:
ranks that orthonormalise a sum agree without a message. Different types of CPU may round
differently, in the last bits; see docs/low_rank.md.
"""

import numpy as np

from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.protocol import Array

GRAM_SCHMIDT_WIDTH = 2
"""Up to this many columns Gram-Schmidt is faster; from 3 on, Cholesky-QR is.

Measured on one core of an AMD EPYC (Zen 4, 2.6 GHz) with NumPy 2.4.6 and OpenBLAS 0.3.31:
six float32 matrices of 2304 x 2 took 0.126 ms and 0.134 ms, of 2304 x 4 0.218 ms and
0.172 ms, of 4096 x 32 6.2 ms and 2.9 ms. LAPACK's QR, which NumPy runs in float64, took
0.24 ms, 0.53 ms and 49 ms.
"""

WEAK_PIVOT = 0.01
"""Share of a unit column that must be left of it beside the columns before it.

Below, Cholesky-QR leaves the matrix to Gram-Schmidt. With u the rounding unit, one pass
ends u / WEAK_PIVOT² from orthonormal at worst, about 1e-3 in float32, the second at u.
"""


WRONG_FACTOR = WEAK_PIVOT**2 / 2
"""How far a Cholesky factor's product may be from a matrix of unit diagonal.

Rounding is far below it, and a factor that is not one is beyond it: a pivot that is not
weak, where none or a negative one belongs, is wrong by its square at least.
"""


def orthogonalise(stack: Array) -> Array:
    """Orthonormal columns that span what the columns of each matrix span.

    Args:
        stack: shape (count, rows, columns) with 0 < columns <= rows, float32 or
            float64; finite. It is not changed.

    Returns:
        A new array of the same shape and type. The first j columns of a result span the
        first j of the matrix, and more where those depend on each other.
    """
    scaled = _scaled(stack)
    if stack.shape[2] <= GRAM_SCHMIDT_WIDTH:
        return gram_schmidt(scaled)
    return cholesky_qr(scaled)


def _scaled(stack: Array) -> Array:
    """Columns with a largest element of 1, so that no square over- or underflows."""
    largest = np.abs(stack).max(axis=1, keepdims=True)
    largest[largest == 0.0] = 1.0
    scaled: Array = stack / largest
    return scaled


def gram_schmidt(stack: Array) -> Array:
    """Classical Gram-Schmidt, each column projected twice, as `orthogonalise`.

    Giraud, Langou and Rozložník (2005): twice is enough for orthogonality to rounding.

    Args:
        stack: shape (count, rows, columns), columns of moderate size.
    """
    xp = namespace_of(stack)
    basis = xp.ascontiguousarray(stack.swapaxes(1, 2))
    for column in range(basis.shape[1]):
        _settle(basis[:, :column], basis[:, column], column)
    columns: Array = xp.ascontiguousarray(basis.swapaxes(1, 2))
    return columns


def _settle(before: Array, vectors: Array, column: int) -> None:
    """Make `vectors`, of shape (count, rows), unit and orthogonal to `before`."""
    whole = _norms(vectors)
    vectors[:] = _outside(before, vectors)
    negligible = 64.0 * np.finfo(vectors.dtype).eps
    lost = _norms(vectors) <= negligible * whole
    if lost.any():
        xp = namespace_of(vectors)
        direction = xp.asarray(_direction(vectors.shape[1], column))
        fresh = xp.broadcast_to(direction, vectors.shape)
        vectors[:] = xp.where(lost[:, None], _outside(before, fresh), vectors)
    vectors[:] = _outside(before, vectors)
    vectors /= _norms(vectors)[:, None]


def _outside(before: Array, vectors: Array) -> Array:
    """`vectors` less what the rows of `before` span."""
    if not before.shape[1]:
        return vectors
    shares = before @ vectors[:, :, None]
    outside: Array = vectors - (shares.swapaxes(1, 2) @ before)[:, 0]
    return outside


def _norms(vectors: Array) -> Array:
    squares = vectors[:, None] @ vectors[:, :, None]
    norms: Array = np.sqrt(squares[:, 0, 0])
    return norms


def _direction(rows: int, column: int) -> Array:
    """The same on all ranks, whatever their generators have drawn."""
    return np.random.default_rng((rows, column)).standard_normal(rows)


def cholesky_qr(stack: Array) -> Array:
    """Cholesky-QR, twice, as `orthogonalise`.

    Fukaya, Nakatsukasa, Yanagisawa and Yamamoto (2014): the second pass brings what the
    square of the condition number has cost. Matrices whose columns nearly depend on each
    other go to `gram_schmidt`.

    Args:
        stack: shape (count, rows, columns), columns of moderate size.
    """
    once, weak = _cholesky_pass(stack)
    where = namespace_of(stack).flatnonzero(weak)
    if where.size:
        once[where] = gram_schmidt(stack[where])
    twice, _ = _cholesky_pass(once)
    return twice


def _cholesky_pass(stack: Array) -> tuple[Array, Array]:
    """Divide unit columns by their Cholesky factors; tell where these are weak."""
    xp = namespace_of(stack)
    grams = stack.swapaxes(1, 2) @ stack
    lengths = xp.sqrt(xp.diagonal(grams, axis1=1, axis2=2))[:, None]
    lengths[lengths == 0.0] = 1.0
    lower = _cholesky(grams / lengths / lengths.swapaxes(1, 2))
    pivots = xp.diagonal(lower, axis1=1, axis2=2)
    weak: Array = (pivots < WEAK_PIVOT).any(axis=1)
    unit = xp.eye(stack.shape[2], dtype=stack.dtype)
    lower = xp.where(weak[:, None, None], unit, lower)
    return stack @ (xp.linalg.inv(lower) / lengths).swapaxes(1, 2), weak


def _cholesky(grams: Array) -> Array:
    """Lower factors; zeros where a matrix is not positive definite."""
    xp = namespace_of(grams)
    if xp is not np:
        return _proved(xp.linalg.cholesky(grams), grams)
    try:
        lower: Array = np.linalg.cholesky(grams)
        return lower
    except np.linalg.LinAlgError:
        if len(grams) == 1:
            return np.zeros_like(grams)
        return np.concatenate([_cholesky(gram[None]) for gram in grams])


def _proved(lower: Array, grams: Array) -> Array:
    """`lower` where it is the factor of its matrix, else zeros.

    CuPy says nothing of a matrix that is not positive definite: what it returns then may
    be NaN, or whatever had been calculated until there.
    """
    error = np.abs(lower @ lower.swapaxes(1, 2) - grams)
    sound = (error <= WRONG_FACTOR).all(axis=(1, 2))
    proved: Array = namespace_of(grams).where(sound[:, None, None], lower, 0.0)
    return proved
