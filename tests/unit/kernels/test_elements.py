"""Conversions of 16-bit numbers, seen through a snapshot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.arrays import bfloat16
from acidmpi.kernels import load

BITS = np.arange(1 << 16, dtype=np.uint16)
DTYPES = ("float16", "uint16")


def decode(array):
    return bfloat16.decode(array) if array.dtype == np.uint16 else array.astype("f4")


def encode(values, dtype):
    if dtype == "uint16":
        return bfloat16.encode(values)
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def rounded(values, dtype):
    """`values` as the kernel stores them: all that flows from x̃ into an x of zeros."""
    x = np.zeros(values.size, dtype)
    out = np.empty_like(x)
    load("cpu").snapshot(x, values, out, 1.0)
    return out


def check(values, dtype):
    with np.errstate(all="ignore"):
        expected = decode(encode(values, dtype))
    np.testing.assert_array_equal(decode(rounded(values, dtype)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_loaded_and_stored_unchanged(dtype):
    x = BITS.view(dtype)
    out = np.zeros_like(x)
    load("cpu").snapshot(x, np.zeros(x.size, np.float32), out, 0.0)
    is_nan = np.isnan(decode(x))
    np.testing.assert_array_equal(out.view("u2")[~is_nan], BITS[~is_nan])
    assert np.isnan(decode(out)[is_nan]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_midpoint_and_its_neighbours_round_to_the_nearest(dtype):
    numbers = decode(BITS.view(dtype))
    finite = np.sort(numbers[np.isfinite(numbers)]).astype(np.float64)
    middle = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    for values in (
        middle,
        *(np.nextafter(middle, s * np.inf, dtype="f4") for s in (1, -1)),
    ):
        check(values, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "value", [65504.0, 65519.0, 65520.0, 1e38, np.inf, np.nan, 1e-45]
)
def test_the_ends_of_the_range(dtype, value):
    check(np.array([value, -value], np.float32), dtype)


@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.sampled_from(DTYPES))
def test_any_number_rounds_as_numpy_does(values, dtype):
    check(np.array(values, np.float32), dtype)
