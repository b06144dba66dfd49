import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import ConfigError
from acidmpi.tasks.sampling import (
    Purpose,
    ShuffledBatches,
    dirichlet_partition,
    generator_for,
)


def stream(samples=10, batch_size=4, seed=0, rank=0):
    generator = generator_for(seed, Purpose.ORDER, rank)
    return ShuffledBatches(np.arange(samples), batch_size, generator)


@given(samples=st.integers(1, 30), batch_size=st.integers(1, 40))
def test_each_pass_takes_every_sample_once(samples, batch_size):
    batches = stream(samples, batch_size)
    taken = np.concatenate([batches.take() for _ in range(samples)])
    passes = taken.reshape(batch_size, samples)
    assert (np.sort(passes, axis=1) == np.arange(samples)).all()


@given(before=st.integers(0, 12), batch_size=st.integers(1, 15))
def test_restored_position_continues_as_if_never_interrupted(before, batch_size):
    batches = stream(10, batch_size)
    for _ in range(before):
        batches.take()
    state = json.loads(json.dumps(batches.state()))
    expected = [batches.take() for _ in range(8)]
    other = stream(10, batch_size, seed=99)
    other.restore(state)
    np.testing.assert_array_equal([other.take() for _ in range(8)], expected)


def test_ranks_and_seeds_have_orders_of_their_own():
    first, other_rank = stream(100, 100), stream(100, 100, rank=1)
    other_seed, same = stream(100, 100, seed=1), stream(100, 100)
    order = first.take()
    assert (order == same.take()).all()
    assert (order != other_rank.take()).any()
    assert (order != other_seed.take()).any()


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    size=st.integers(1, 60),
    concentration=st.floats(1e-3, 1e3),
    seed=st.integers(0, 5),
)
def test_partition_loses_nothing_repeats_nothing_and_leaves_no_rank_empty(
    labels, size, concentration, seed
):
    size = min(size, len(labels))
    shares = dirichlet_partition(np.array(labels), size, concentration, seed)
    assert len(shares) == size
    assert min(len(share) for share in shares) > 0
    assert sorted(np.concatenate(shares)) == list(range(len(labels)))


def label_share(concentration):
    """Mean over ranks of the share of a rank's commonest label; 0.1 is an even mix."""
    labels = np.repeat(np.arange(10), 200)
    shares = dirichlet_partition(labels, 8, concentration, seed=3)
    return np.mean([np.bincount(labels[s]).max() / len(s) for s in shares])


def test_small_concentration_skews_labels_and_a_large_one_does_not():
    assert label_share(1e4) < 0.13 < 0.25 < label_share(0.3) < label_share(0.01)


def test_partition_is_the_same_on_every_rank_and_changes_with_the_seed():
    labels = np.repeat(np.arange(10), 20)
    one, two = (dirichlet_partition(labels, 4, 0.3, seed=1) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    other = dirichlet_partition(labels, 4, 0.3, seed=2)
    assert any(list(a) != list(b) for a, b in zip(one, other, strict=True))


def test_more_ranks_than_samples_is_refused():
    with pytest.raises(ConfigError, match="5 ranks for 4 samples"):
        dirichlet_partition(np.zeros(4, int), 5, 0.3, 0)
