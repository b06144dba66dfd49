"""Arrays that are not NumPy's: what the stand-in refuses, and what is done about it."""

import numpy as np
import pytest
from support import cupy_like
from support.cupy_like import asarray

from acidmpi.arrays import bfloat16
from acidmpi.arrays.accelerator import beside
from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.feedback import Residuals
from acidmpi.compression.lowrank_message import Parcel, subtract_product, write_product
from acidmpi.compression.orthogonal import orthogonalise
from acidmpi.compression.packing import as_numbers, brain, half, pack, unpack
from acidmpi.compression.protocol import Spec

HERE = np.arange(6, dtype="f4")
REFUSED = {
    "to become NumPy's": lambda there: np.asarray(there),
    "a NumPy operand": lambda there: there + HERE,
    "a NumPy operand before": lambda there: HERE * there,
    "a NumPy operand in place": lambda there: there.__iadd__(HERE),
    "NumPy memory for a result": lambda there: np.sqrt(there, out=HERE.copy()),
    "to be written into NumPy memory": lambda there: HERE.copy().__setitem__(
        ..., there
    ),
    "NumPy values": lambda there: there.__setitem__(slice(None), HERE),
    "a NumPy index": lambda there: there[np.arange(2)],
    "a mixed list": lambda there: np.concatenate([there, HERE]),
    "its own list with NumPy in it": lambda _: cupy_like.concatenate([HERE, HERE]),
    "an array through a mask": lambda there: there.__setitem__(there > 2, there[:3]),
    "numbers at odd places": lambda there: there.view(np.uint8)[4:12].view(np.float64),
    "an initial value": lambda there: there.max(initial=0.0),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_stand_in_refuses(what):
    with pytest.raises(TypeError):
        REFUSED[what](asarray(HERE))


def test_the_stand_in_takes_numbers_and_its_own():
    there = asarray(HERE)
    assert namespace_of(there) is cupy_like
    there[there > 3] = np.float32(1.0)
    there *= 2
    there += there[::-1]
    assert type(there.max()) is cupy_like.ndarray
    assert (int(there[0]), bool(there.any()), there.dtype) == (2, True, HERE.dtype)
    np.testing.assert_array_equal(np.abs(there).get(), [2, 4, 10, 10, 4, 2])
    assert HERE[5] == 5


def test_arrays_are_brought_beside_others():
    there = asarray(HERE)
    assert beside(HERE, HERE) is HERE
    assert beside(there, there) is there
    back = beside(there, HERE)
    assert type(back) is np.ndarray
    assert not np.shares_memory(back, HERE)
    np.testing.assert_array_equal(back, HERE)
    assert type(beside(HERE, there)) is cupy_like.ndarray


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_numbers_are_rounded_alike(dtype):
    values = np.array([1e5, -1e5, 65519, np.inf, -np.inf, 1e-9, -0.0, 1.01], dtype)
    np.testing.assert_array_equal(half(asarray(values)).get(), half(values))
    many = np.random.default_rng(0).standard_normal(500).astype(dtype)
    values = np.concatenate([values, [np.nan, -np.nan], many]).astype(dtype)
    np.testing.assert_array_equal(brain(asarray(values)).get(), bfloat16.encode(values))


def test_codes_at_any_word_are_read():
    numbers = np.array([1.5, -2.0])
    code = asarray(np.concatenate([np.zeros(4, np.uint8), numbers.view(np.uint8)]))
    np.testing.assert_array_equal(as_numbers(code[4:], numbers.dtype).get(), numbers)


def test_neighbours_are_packed_without_a_copy():
    home = asarray(HERE)
    pieces = [home[:2], home[2:5]]
    packed = pack(pieces)
    packed += 1
    np.testing.assert_array_equal(home.get(), [1, 2, 3, 4, 5, 5])
    apart = [asarray(HERE), asarray(HERE)]
    packed = pack(apart)
    packed += 1
    unpack(packed, apart)
    np.testing.assert_array_equal(apart[1].get(), HERE + 1)


def test_residuals_follow_their_gradients():
    residuals = Residuals([Spec((2,), np.dtype("f4")), Spec((3,), np.dtype("f4"))])
    residuals.replace({1: np.ones(3)})
    residuals.follow((1, 0), asarray(HERE))
    block = residuals.block((1, 0))
    assert type(block) is cupy_like.ndarray
    np.testing.assert_array_equal(block.get(), [1, 1, 1, 0, 0])
    residuals.replace({0: np.full(2, 7.0)})
    np.testing.assert_array_equal(residuals.block((1, 0)).get(), [1, 1, 1, 7, 7])


def unfinished(grams):
    """Where a factor cannot be made, the matrix is left as it was below its diagonal."""
    return asarray(
        np.array(
            [
                np.tril(gram) if np.isnan(lower).any() else lower
                for gram, lower in zip(
                    grams.get(), cupy_like._cholesky(grams).get(), strict=True
                )
            ]
        )
    )


@pytest.mark.parametrize("cholesky", [cupy_like._cholesky, unfinished])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_bases_are_those_of_numpy(monkeypatch, width, dtype, cholesky):
    monkeypatch.setattr(cupy_like.linalg, "cholesky", cholesky)
    draw = np.random.default_rng(width)
    stack = draw.standard_normal((6, 40, width)).astype(dtype)
    stack[1] = 0.0
    stack[2, :, -1] = stack[2, :, 0]
    stack[3] = stack[3, :, :1] * np.arange(1, width + 1)
    stack[4] *= 1e-20
    basis = orthogonalise(asarray(stack)).get()
    np.testing.assert_array_equal(basis, orthogonalise(stack))


def test_an_unfinished_factor_that_is_believed_is_found(monkeypatch):
    monkeypatch.setattr(cupy_like.linalg, "cholesky", unfinished)
    monkeypatch.setattr("acidmpi.compression.orthogonal.WRONG_FACTOR", np.inf)
    basis = orthogonalise(asarray(np.ones((1, 40, 3)))).get()
    assert np.abs(basis[0].T @ basis[0] - np.eye(3)).max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint16"])
def test_products_are_subtracted_and_written(dtype):
    wide = np.float64 if dtype == "float64" else np.float32
    draw = np.random.default_rng(0)
    left, right = draw.random((3, 2)).astype(wide), draw.random((4, 2)).astype(wide)
    matrix, out = np.ones((3, 4), wide), np.zeros(12, dtype)
    mine = [asarray(array) for array in (matrix, out, left, right)]
    subtract_product(mine[0], *mine[2:])
    np.testing.assert_allclose(mine[0].get(), 1 - left @ right.T, rtol=1e-5, atol=1e-6)
    write_product(*mine[2:], mine[1])
    write_product(left, right, out)
    np.testing.assert_array_equal(mine[1].get(), out)


def test_a_parcel_is_made_where_its_gradients_are():
    gradient = asarray(np.array([2.0, 4.0], np.float16))
    parcel = Parcel(np.dtype("f4"), [gradient], [(1, 3, 1)], cupy_like)
    parcel.factors[0][:] = 8.0
    parcel.array /= 2
    parcel.deliver()
    np.testing.assert_array_equal(parcel.array.get(), [1, 2, 4, 4, 4])
    np.testing.assert_array_equal(gradient.get(), [1, 2])
