"""Chunks cover every buffer once, evenly, within the bound; runs merge neighbours."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.arrays.flat import (
    FlatBuffer,
    Piece,
    View,
    chunks,
    merge,
    wide_dtype,
)
from acidmpi.errors import ConfigError

dtypes = st.sampled_from(["float64", "float32", "float16", "uint16"])
buffers = st.lists(
    st.builds(np.empty, st.integers(0, 5000), dtypes), min_size=1, max_size=3
)


@given(buffers, st.integers(8, 4096))
def test_chunks_cover_every_element_once_and_in_order(arrays, chunk_bytes):
    seen = [np.zeros(a.size, int) for a in arrays]
    last = (0, 0)
    for buffer, start, stop in chunks(arrays, chunk_bytes):
        assert (buffer, start) >= last
        last = (buffer, stop)
        seen[buffer][start:stop] += 1
    assert all((counts == 1).all() for counts in seen)


@given(buffers, st.integers(8, 4096))
def test_chunks_are_bounded_aligned_and_nearly_equal(arrays, chunk_bytes):
    cut = chunks(arrays, chunk_bytes)
    for index, array in enumerate(arrays):
        mine = [chunk for chunk in cut if chunk.buffer == index]
        sizes = [(chunk.stop - chunk.start) * array.itemsize for chunk in mine]
        assert all(0 < size <= chunk_bytes for size in sizes)
        grain = 64 if chunk_bytes >= 64 else array.itemsize
        assert all(chunk.start * array.itemsize % grain == 0 for chunk in mine)
        # The last chunk may lack what rounding its end up would have added.
        assert not sizes or max(sizes) - min(sizes) < 2 * grain


def test_no_more_chunks_than_needed():
    assert len(chunks([np.empty(1000, np.float32)], 4000 + 63)) == 1
    assert len(chunks([np.empty(1024, np.float32)], 1024)) == 4


def test_a_chunk_smaller_than_an_element_is_refused():
    with pytest.raises(ConfigError, match="chunk_bytes=4"):
        chunks([np.empty(3)], 4)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((2, 2)), "one-dimensional"),
        (np.zeros(8)[::2], "contiguous"),
        (np.zeros(3, np.int64), "int64"),
    ],
)
def test_a_buffer_is_a_contiguous_vector_of_a_known_type(values, text):
    with pytest.raises(ConfigError, match=text):
        FlatBuffer(values)


def test_a_gradient_has_the_form_of_its_values():
    with pytest.raises(ConfigError, match="float32"):
        FlatBuffer(np.zeros(3), np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match="4"):
        FlatBuffer(np.zeros(3), np.zeros(4))


def test_named_arrays_are_views_with_their_own_strides():
    buffer = FlatBuffer(np.arange(7.0), views={"w": View(1, 7, (2, 3), (1, 2))})
    w = buffer.named("w")
    np.testing.assert_array_equal(w, [[1, 3, 5], [2, 4, 6]])
    w[1, 0] = 9
    assert buffer.values[2] == 9
    np.testing.assert_array_equal(buffer.named("w", np.ones(7)), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [("uint16", "f4"), ("float16", "f4"), ("float32", "f4"), ("float64", "f8")],
)
def test_companions_have_at_least_single_precision(narrow, wide):
    assert wide_dtype(narrow) == np.dtype(wide)


lengths = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=12)


@given(lengths, st.data())
def test_runs_cover_exactly_the_wanted_pieces_and_are_maximal(layout, data):
    pieces, start = [], 0
    for length, group in layout:
        pieces.append(Piece(0, group, start, start + length))
        start += length
    keys = data.draw(st.lists(st.sampled_from([None, 0, 1]), min_size=len(pieces),
                              max_size=len(pieces)))  # fmt: skip
    runs = merge(pieces, keys)
    members = [index for run in runs for index in run.pieces]
    assert members == [k for k, key in enumerate(keys) if key is not None]
    for run in runs:
        first, last = pieces[run.pieces[0]], pieces[run.pieces[-1]]
        assert (run.start, run.stop) == (first.start, last.stop)
        assert {(pieces[k].group, keys[k]) for k in run.pieces} == {
            (run.group, run.key)
        }
        assert run.stop - run.start == sum(
            pieces[k].stop - pieces[k].start for k in run.pieces
        )
    for left, right in itertools.pairwise(runs):
        apart = left.stop != right.start
        assert apart or (left.group, left.key) != (right.group, right.key)
