"""Packing without copies where there need be none, and numbers in fewer bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.arrays import bfloat16
from acidmpi.compression.packing import (
    as_bytes,
    bit_bytes,
    half,
    narrow,
    pack,
    pack_bits,
    padded,
    unpack,
    unpack_bits,
    widen,
)
from acidmpi.errors import ConfigError


def test_neighbours_are_packed_without_a_copy():
    flat = np.arange(10, dtype="f4")
    pieces = [flat[1:4], flat[4:4], flat[4:5], flat[5:9]]
    packed = pack(pieces)
    assert np.shares_memory(packed, flat)
    assert packed.tolist() == list(range(1, 9))
    packed *= 2
    unpack(packed, pieces)
    assert flat.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 9]


@pytest.mark.parametrize("order", [(1, 0), (0, 2), (0, 0)])
def test_other_orders_and_gaps_are_copied(order):
    flat = np.arange(9, dtype="f4")
    pieces = [flat[:3], flat[3:6], flat[6:]]
    chosen = [pieces[k] for k in order]
    packed = pack(chosen)
    assert not np.shares_memory(packed, flat)
    assert packed.tolist() == np.concatenate(chosen).tolist()


def test_what_was_copied_is_copied_back():
    pieces = [np.zeros(2), np.zeros(0), np.zeros(3)]
    packed = pack(pieces)
    packed[:] = range(5)
    unpack(packed, pieces)
    assert [piece.tolist() for piece in pieces] == [[0, 1], [], [2, 3, 4]]


def test_one_type_and_at_least_one_array():
    assert pack([np.zeros(0, "f4"), np.zeros(0, "f4")]).size == 0
    with pytest.raises(ConfigError, match="float32, float64"):
        pack([np.zeros(1, "f4"), np.zeros(1, "f8")])
    with pytest.raises(ConfigError, match="no array at all"):
        pack([])


@given(st.lists(st.booleans(), max_size=200))
def test_bits_survive_in_whole_words(bits):
    packed = pack_bits(np.array(bits, bool))
    assert packed.dtype == np.uint8
    assert packed.size == bit_bytes(len(bits)) == -(-len(bits) // 32) * 4
    assert unpack_bits(packed, len(bits)).astype(bool).tolist() == bits


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "u2"])
def test_widening_and_narrowing_are_inverse(dtype):
    every = np.arange(1 << 16, dtype=np.uint16)
    stored = every.view("f2") if dtype == "f2" else every.astype(dtype)
    wide = widen(stored)
    assert wide.dtype == ("f8" if dtype == "f8" else "f4")
    back = np.empty_like(stored)
    narrow(wide, back)
    real = ~np.isnan(wide)
    assert back[real].tobytes() == stored[real].tobytes()
    assert np.isnan(widen(back[~real])).all()


def test_what_is_wide_is_not_copied():
    assert all(widen(x) is x for x in (np.zeros(3), np.zeros(3, "f4")))


def test_half_saturates_what_is_finite_only():
    values = np.array([1e30, -1e30, 65504, 65520, np.inf, -np.inf, np.nan, 0.1], "f4")
    got = half(values).tolist()
    assert got[:6] == [65504, -65504, 65504, 65504, np.inf, -np.inf]
    assert np.isnan(got[6])
    assert got[7] == np.float16(0.1)


def test_bfloat16_keeps_nan_and_rounds_to_even():
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.nan, -np.inf], "f4")
    got = bfloat16.decode(bfloat16.encode(values))
    assert got[:2].tolist() == [1, 1 + 2**-6]
    assert np.isnan(got[2])
    assert got[3] == -np.inf


def test_padding_and_joining():
    array = np.arange(3, dtype="f4")
    assert padded(array, 3) is array
    assert padded(array, 5).tolist() == [0, 1, 2, 0, 0]
    joined = as_bytes(array, np.array([7], "i4"))
    assert joined[:12].view("f4").tolist() == [0, 1, 2]
    assert joined[12:].view("i4").tolist() == [7]
