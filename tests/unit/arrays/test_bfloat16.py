import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.arrays import bfloat16

ALL = np.arange(1 << 16, dtype=np.uint16)
LARGEST = 0x7F7F


def test_decoding_and_encoding_give_the_bits_back():
    values = bfloat16.decode(ALL)
    back = bfloat16.encode(values)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(back[numbers], ALL[numbers])
    assert np.isnan(bfloat16.decode(back[~numbers])).all()


def test_known_numbers():
    known = {0x3F80: 1.0, 0xC000: -2.0, 0x0001: 2.0**-133, 0x7F80: np.inf}
    bits = np.array(list(known), np.uint16)
    np.testing.assert_array_equal(bfloat16.decode(bits), list(known.values()))


@given(st.floats(width=32, allow_nan=False, min_value=0))
def test_no_neighbour_is_nearer_and_ties_are_even(value):
    (bits,) = bfloat16.encode(np.array([value], np.float32))
    if bits > LARGEST:  # rounded to infinity: beyond the last midpoint
        assert value >= bfloat16.decode(np.array([LARGEST], np.uint16))[0] * 1.0019
        return
    near = np.array([max(int(bits), 1) - 1, bits, bits + 1], np.uint16)
    with np.errstate(invalid="ignore"):
        distances = abs(bfloat16.decode(near).astype(np.float64) - value)
    assert distances[1] <= distances[0] or bits == 0
    assert distances[1] <= distances[2]
    if distances[1] in (distances[0], distances[2]) and distances[1] > 0:
        assert bits % 2 == 0
