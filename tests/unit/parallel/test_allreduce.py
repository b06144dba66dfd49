"""The arithmetic of long sums: who owns what, in which pieces, in which order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.parallel.allreduce import (
    ALIGNMENT_BYTES,
    LARGEST_CHUNK_BYTES,
    STAGING_BYTES,
    add_in_order,
    chunk_bytes,
    chunks_of,
    parts_of,
    staging_bytes,
)

TYPES = st.sampled_from(["float32", "float64"])


@given(st.integers(1, 5000), st.integers(1, 70), TYPES)
def test_parts_make_up_the_array(length, size, dtype):
    array = np.arange(length, dtype=dtype)
    parts = parts_of(array, size)
    assert len(parts) == size
    assert np.array_equal(np.concatenate(parts), array)
    assert all(np.shares_memory(part, array) for part in parts if part.size)
    full = [part for part in parts if part.size == parts[0].size]
    assert all(part.size == 0 for part in parts[len(full) + 1 :])
    assert size == 1 or not parts[1].size or parts[0].nbytes % ALIGNMENT_BYTES == 0


LONGEST = st.none() | st.integers(1, 1 << 20)


@given(st.integers(0, 400_000), st.integers(2, 70), LONGEST, TYPES)
def test_chunks_make_up_a_part_and_fit_into_staging(length, size, longest, dtype):
    part, most = np.zeros(length, dtype), chunk_bytes(size, longest)
    chunks = chunks_of(part, most)
    assert sum(chunk.size for chunk in chunks) == length
    assert all(0 < chunk.nbytes <= most for chunk in chunks)


@given(st.integers(2, 4096), LONGEST)
def test_staging_is_bounded(size, longest):
    chunk = chunk_bytes(size, longest)
    assert chunk <= max(longest or LARGEST_CHUNK_BYTES, ALIGNMENT_BYTES)
    assert chunk % ALIGNMENT_BYTES == 0
    most = max(STAGING_BYTES, 4 * size * ALIGNMENT_BYTES)
    assert staging_bytes(size, chunk) <= most


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_rank_adds_in_the_same_order(size, dtype):
    """Bit for bit the sum from rank 0 on, whoever owns the part."""
    rng = np.random.default_rng(size)
    vectors = [
        (rng.standard_normal(999) * 10.0 ** rng.integers(-6, 6)).astype(dtype)
        for _ in range(size)
    ]
    expected = vectors[0].copy()
    for vector in vectors[1:]:
        expected = expected + vector
    for rank in range(size):
        copies = [vector.copy() for vector in vectors]
        own = copies.pop(rank)
        add_in_order(copies, own, rank)
        assert np.array_equal(own, expected)


def test_another_order_would_be_found():
    """A planted fault: own numbers first, as it would be simplest."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(999).astype(np.float32) for _ in range(3))
    assert not np.array_equal((c + a) + b, (a + b) + c)
