"""Buckets: every parameter once, last first, of one type, and as full as allowed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.compression.protocol import Spec
from acidmpi.errors import ConfigError
from acidmpi.parallel.buckets import Bucket, dense_bytes, make_buckets

DTYPES = [np.dtype(name) for name in ("float64", "float32", "float16", "uint16")]


def specs_of(*sizes, dtype="float32"):
    return [Spec((size,), np.dtype(dtype)) for size in sizes]


def dense(specs):
    return lambda index: dense_bytes(specs[index])


def cut(specs, payload, limit):
    return [list(bucket.indices) for bucket in make_buckets(specs, payload, limit)]


spec_lists = st.lists(
    st.builds(
        Spec,
        st.lists(st.integers(1, 9), max_size=3).map(tuple),
        st.sampled_from(DTYPES),
    ),
    min_size=1,
    max_size=20,
)


@given(spec_lists, st.integers(0, 2000), st.integers(1, 16))
def test_every_parameter_is_once_in_a_bucket_in_reverse_order(specs, limit, divisor):
    buckets = make_buckets(specs, lambda i: dense_bytes(specs[i]) // divisor, limit)
    indices = [index for bucket in buckets for index in bucket.indices]
    assert indices == list(reversed(range(len(specs))))
    assert all(len({specs[i].dtype for i in b.indices}) == 1 for b in buckets)


@given(spec_lists, st.integers(1, 2000))
def test_only_a_parameter_alone_exceeds_the_limit(specs, limit):
    for bucket in make_buckets(specs, dense(specs), limit):
        total = sum(dense_bytes(specs[i]) for i in bucket.indices)
        assert total <= limit or len(bucket.indices) == 1


@given(spec_lists, st.integers(1, 2000))
def test_no_bucket_could_take_the_first_of_the_next(specs, limit):
    buckets = make_buckets(specs, dense(specs), limit)
    for bucket, after in pairwise(buckets):
        first = after.indices[0]
        total = sum(dense_bytes(specs[i]) for i in (*bucket.indices, first))
        other_type = specs[first].dtype != specs[bucket.indices[0]].dtype
        assert total > limit or other_type


def test_the_limit_shrinks_with_the_payload():
    """A tenth of the payload makes the same buckets, not one tenth of their number."""
    specs = specs_of(*[10] * 12)
    whole = cut(specs, dense(specs), 120)
    assert whole == [[11, 10, 9], [8, 7, 6], [5, 4, 3], [2, 1, 0]]
    assert cut(specs, lambda i: 4, 120) == whole


def test_a_phase_with_other_payloads_has_other_buckets():
    specs = specs_of(10, 10, 10, 10)
    small_last = [10, 10, 1, 1]
    assert cut(specs, small_last.__getitem__, 80) == [[3, 2], [1], [0]]
    assert cut(specs, small_last[::-1].__getitem__, 80) == [[3], [2, 1], [0]]


def test_zero_means_one_bucket_for_each_parameter():
    specs = specs_of(1, 2, 3)
    assert make_buckets(specs, dense(specs), 0) == (
        Bucket((2,)),
        Bucket((1,)),
        Bucket((0,)),
    )
    assert cut(specs, lambda i: 0, 0) == [[2], [1], [0]]


def test_types_are_not_mixed():
    specs = [*specs_of(4), *specs_of(4, dtype="float64"), *specs_of(4)]
    assert cut(specs, dense(specs), 1 << 20) == [[2], [1], [0]]


def test_a_negative_limit_is_refused():
    specs = specs_of(1)
    with pytest.raises(ConfigError, match="bucket_bytes must be ≥ 0"):
        make_buckets(specs, dense(specs), -1)
