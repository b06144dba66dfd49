"""Tensors to arrays and back."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.compat.horovod.works import divided, scaled, split_lengths
from acidmpi.compat.tensors import (
    check_plain,
    data,
    from_data,
    like,
    numbers,
    row_bytes,
)
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import ConfigError

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.complex128,
]
SHAPES = [(), (3,), (0, 2), (2, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_there_and_back(dtype, shape):
    tensor = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    tensor = tensor.flatten()[: int(np.prod(shape))].reshape(shape)
    for mine in (tensor, tensor.T if tensor.dim() == 2 else tensor):
        for back in (like(numbers(mine), mine), from_data(data(mine), mine)):
            assert back.dtype is dtype
            assert back.shape == mine.shape
            assert torch.equal(back, mine)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_short_complex_numbers_become_wide():
    mine = torch.ones(2, dtype=torch.complex32)
    assert numbers(mine).dtype == np.complex64
    assert like(numbers(mine), mine).dtype is torch.complex32


def test_what_torch_only_noted_is_calculated():
    noted = torch.tensor([1 + 2j, 3 - 4j]).conj()
    for mine in (noted, noted.imag):
        for back in (like(numbers(mine), mine), from_data(data(mine), mine)):
            assert torch.equal(back, mine)


def test_arrays_are_copies():
    tensor = torch.zeros(3)
    numbers(tensor)[:] = 1
    data(tensor)[:] = 1
    assert tensor.tolist() == [0, 0, 0]


def test_narrow_numbers_become_wide():
    assert numbers(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert numbers(torch.ones(2, dtype=torch.float16)).dtype == np.float32
    assert numbers(torch.ones(2, dtype=torch.bool)).dtype == np.uint8


def test_rows():
    tensor = torch.zeros(5, 3, 2, dtype=torch.float16)
    assert row_bytes(tensor) == 12
    longer = from_data(np.zeros(7 * 12, np.uint8), tensor, 7)
    assert longer.shape == (7, 3, 2)


def test_one_element_has_any_stride():
    one = torch.arange(6.0).reshape(3, 2)[1:2, 1]
    assert one.stride() == (2,)
    assert torch.equal(from_data(data(one), one), one)


def test_what_has_no_plain_values_is_refused():
    one = torch.ones(2)
    check_plain("a sum", one)
    for odd in (one.to_sparse(), one.to("meta")):
        with pytest.raises(UnsupportedError, match="to_dense"):
            check_plain("a sum", odd)
    with pytest.raises(ConfigError, match=r"needs a torch.Tensor, got float 3\.0"):
        check_plain("a sum", 3.0)


@given(st.integers(-(2**40), 2**40), st.floats(-4, 4))
def test_integers_are_cut_off_towards_zero(value, factor):
    assert scaled(np.array([value]), factor)[0] == int(value * factor)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 300))
def test_means_of_long_integers_are_exact(total, count):
    mean = divided(np.array([total], np.int64), count)
    assert mean.dtype == np.int64
    assert mean[0] == (abs(total) // count) * (1 if total > 0 else -1)


def test_means_of_short_integers_and_of_many_ranks():
    for dtype in (np.int8, np.uint8, np.uint64):
        mean = divided(np.array([100, 7], dtype), 3)
        assert (mean.dtype, mean.tolist()) == (np.dtype(dtype), [33, 2])
    assert divided(np.array([-100], np.int8), 300)[0] == 0


def test_splits():
    assert split_lengths(torch.zeros(6, 2), None, 3) == [2, 2, 2]
    assert split_lengths(torch.zeros(6), torch.tensor([1, 0, 5]), 3) == [1, 0, 5]


@pytest.mark.parametrize(
    ("length", "splits"),
    [(7, None), (6, [1, 2]), (6, [1, 2, 4]), (6, [-1, 3, 4])],
)
def test_splits_that_make_no_sense(length, splits):
    with pytest.raises(ConfigError, match="splits"):
        split_lengths(torch.zeros(length), splits, 3)


def test_an_older_torch_knows_fewer_types():
    """The oldest that is allowed is 2.4; this type came with 2.7."""
    code = "import torch; del torch.float8_e8m0fnu; import acidmpi.compat.tensors"
    subprocess.run([sys.executable, "-c", code], check=True)
