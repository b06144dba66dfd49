"""Products in place, and messages of many pieces."""

import numpy as np
import pytest

from acidmpi.compression import lowrank_message
from acidmpi.compression.lowrank_message import Parcel, subtract_product, write_product


def draw(*shape, dtype="float64"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("band", [1, 7, 30, 1 << 20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 5), (9, 1), (13, 6), (4, 30)])
def test_products_are_subtracted_in_place(monkeypatch, shape, dtype, band):
    monkeypatch.setattr(lowrank_message, "BAND_ELEMENTS", band)
    rows, columns = shape
    home = draw(rows * columns + 3, dtype=dtype)
    matrix = home[2:-1].reshape(shape)
    left, right = draw(rows, 2, dtype=dtype), draw(columns, 2, dtype=dtype)
    expected = matrix - left @ right.T
    around = home[[0, 1, -1]].copy()
    subtract_product(matrix, left, right)
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    np.testing.assert_array_equal(home[[0, 1, -1]], around)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint16"])
def test_products_are_written_in_the_type_of_the_gradient(dtype):
    left, right = np.full((3, 2), 0.5), np.full((4, 2), 3.0)
    wide = np.float64 if dtype == "float64" else np.float32
    out = np.zeros(12, dtype)
    write_product(left.astype(wide), right.astype(wide), out)
    assert (out == (0x4040 if dtype == "uint16" else 3.0)).all()


def test_a_parcel_is_one_array_and_its_mean_goes_back():
    gradients = [np.array([2.0, 4.0], np.float16), np.array([6.0], np.float32)]
    parcel = Parcel(np.dtype(np.float32), gradients, [(2, 3, 1), (1, 2, 2)])
    assert [factor.shape for factor in parcel.factors] == [(3, 1), (3, 1), (2, 2)]
    for factor in parcel.factors:
        factor[:] = 8.0
    np.testing.assert_array_equal(parcel.array, [2, 4, 6, *[8] * 10])
    parcel.array /= 2
    parcel.deliver()
    np.testing.assert_array_equal(np.concatenate(gradients), [1, 2, 3])
    assert all((factor == 4.0).all() for factor in parcel.factors)
