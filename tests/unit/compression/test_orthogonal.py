"""Orthonormal bases: exact, for every matrix by itself, whatever its columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from acidmpi.compression.orthogonal import cholesky_qr, gram_schmidt, orthogonalise

DTYPES = ("float32", "float64")
WIDTHS = (1, 2, 3, 4, 7, 32)


def random_stack(count, rows, columns, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(
        (count, rows, columns), dtype=dtype
    )


def distance_from_orthonormal(basis):
    basis = basis.astype(np.float64)
    grams = basis.swapaxes(1, 2) @ basis
    return np.abs(grams - np.eye(basis.shape[2])).max(initial=0.0)


def left_outside(basis, stack):
    """Largest element of `stack` that `basis` does not span."""
    basis, stack = basis.astype(np.float64), stack.astype(np.float64)
    outside = stack - basis @ (basis.swapaxes(1, 2) @ stack)
    return np.abs(outside).max()


def tolerance(dtype):
    return 50 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_columns_are_orthonormal_and_span_the_same(width, dtype):
    stack = random_stack(5, 96, width, dtype)
    basis = orthogonalise(stack)
    assert basis.shape == stack.shape
    assert basis.dtype == dtype
    assert distance_from_orthonormal(basis) < tolerance(dtype)
    assert left_outside(basis, stack) < tolerance(dtype) * np.abs(stack).max() * 10


@pytest.mark.parametrize("width", WIDTHS)
def test_each_matrix_is_treated_by_itself(width):
    stack = random_stack(6, 50, width, "float32") * np.geomspace(
        1e-20, 1e15, 6, dtype="float32"
    ).reshape(6, 1, 1)
    stack[2] = 0.0
    together = orthogonalise(stack)
    for alone, matrix in zip(together, stack, strict=True):
        np.testing.assert_array_equal(alone, orthogonalise(matrix[None])[0])


@pytest.mark.parametrize("width", WIDTHS)
def test_order_of_the_stack_does_not_matter(width):
    stack = random_stack(6, 50, width, "float32")
    order = [3, 0, 5, 1, 4, 2]
    np.testing.assert_array_equal(
        orthogonalise(stack)[order], orthogonalise(stack[order])
    )


def joint_norm(stack):
    """Planted fault: one norm for the whole stack."""
    return stack / np.linalg.norm(stack)


def check_unit_columns(method):
    assert distance_from_orthonormal(method(random_stack(2, 9, 1))) < 1e-12


def test_unit_columns_catch_a_joint_norm():
    check_unit_columns(orthogonalise)
    with pytest.raises(AssertionError):
        check_unit_columns(joint_norm)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_dependent_columns_are_completed(width, dtype):
    stack = np.zeros((4, 40, width), dtype)
    stack[1, :, -1] = 3.0
    stack[2] = random_stack(1, 40, 1, dtype)[0]
    stack[3] = random_stack(1, 40, width, dtype)[0]
    stack[3, :, width // 2] = 0.0
    basis = orthogonalise(stack)
    assert distance_from_orthonormal(basis) < tolerance(dtype)
    assert left_outside(basis, stack) < tolerance(dtype) * 30


def test_completed_directions_touch_every_row():
    assert (orthogonalise(np.zeros((1, 64, 4))) != 0.0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("exponent", [0.25, 0.45, 0.5, 0.75, 1.0])
def test_columns_that_nearly_depend_are_still_separated(exponent, width, dtype):
    apart = 10 * np.finfo(dtype).eps ** exponent
    base = random_stack(3, 60, 1, dtype)
    nearly = base + random_stack(3, 60, width, dtype, seed=1) * apart
    basis = orthogonalise(nearly.astype(dtype))
    assert distance_from_orthonormal(basis) < tolerance(dtype)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_scale_does_not_matter(width, scale):
    stack = random_stack(2, 30, width)
    np.testing.assert_allclose(
        orthogonalise(stack * scale), orthogonalise(stack), atol=1e-12
    )


@pytest.mark.parametrize("width", [2, 4])
def test_both_ways_agree_to_rounding(width):
    stack = random_stack(3, 80, width)
    np.testing.assert_allclose(cholesky_qr(stack), gram_schmidt(stack), atol=1e-12)


def test_square_matrices_have_a_basis_of_everything():
    square = np.zeros((2, 5, 5))
    square[0] = random_stack(1, 5, 5)[0]
    basis = orthogonalise(square)
    np.testing.assert_allclose(
        basis @ basis.swapaxes(1, 2), np.broadcast_to(np.eye(5), (2, 5, 5)), atol=1e-13
    )


def test_the_argument_is_not_changed():
    for width in (2, 4):
        stack = random_stack(2, 20, width)
        before = stack.copy()
        orthogonalise(stack)
        np.testing.assert_array_equal(stack, before)


elements = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(5, 9), st.integers(1, 5)),
        elements=elements,
    )
)
def test_any_finite_matrices_give_orthonormal_columns(stack):
    assert distance_from_orthonormal(orthogonalise(stack)) < 1e-5
