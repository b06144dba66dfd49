"""The estimate of the consensus distance: unbiased, and as sharp as it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.telemetry.sketch import CELLS, SAMPLES, Sketcher, consensus_distance


def exact(x):
    """mean ‖x_i − x̄‖² of the rows."""
    return float(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())


def estimate(x, seed=0):
    """What the ranks, one for each row, find together."""
    sketcher = Sketcher([x.shape[1]], seed)
    (chosen,) = sketcher.coordinates
    summed = sum(sketcher.sketch([row[chosen]]) for row in x)
    return consensus_distance(summed, len(x))


def rows(seed, ranks=5, length=300):
    return np.random.default_rng(seed).standard_normal((ranks, length))


def test_one_number_is_measured_exactly():
    x = rows(0, length=1)
    assert estimate(x) == pytest.approx(exact(x), rel=1e-12)


@pytest.mark.parametrize("length", [50, 300, 3 * SAMPLES])
def test_the_estimate_is_unbiased_and_has_the_error_it_states(length):
    """Over seeds: the mean is right within four of its standard errors."""
    x = rows(1, length=length)
    found = np.array([estimate(x, seed) for seed in range(300)]) / exact(x)
    spread = found.std()
    assert abs(found.mean() - 1.0) < 4 * spread / math.sqrt(len(found))
    # Four independent differences between five ranks sharpen the √(2/cells) of one.
    assert spread < math.sqrt(2 / CELLS)


def test_a_distance_in_few_coordinates_is_not_lost_where_all_are_sampled():
    x = np.zeros((4, 1000))
    x[0, 17] = 1.0
    assert estimate(x) == pytest.approx(exact(x), rel=1e-9), "one coordinate, one cell"


def test_ranks_that_agree_have_no_distance():
    x = np.tile(rows(2)[0], (6, 1)) * 1e3
    assert estimate(x) == pytest.approx(0.0, abs=1e-6)


@given(st.floats(-1e3, 1e3), st.integers(0, 100))
def test_a_common_shift_changes_nothing(shift, seed):
    x = rows(3, length=40)
    bound = 1e-9 * (1 + shift**2)
    assert estimate(x + shift, seed) == pytest.approx(estimate(x, seed), abs=40 * bound)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5), st.integers(0, 10))
def test_coordinates_lie_in_their_buffers_once_each_on_all_ranks(sizes, seed):
    one, other = Sketcher(sizes, seed), Sketcher(sizes, seed)
    assert sum(len(c) for c in one.coordinates) == min(sum(sizes), SAMPLES)
    for size, chosen, again in zip(
        sizes, one.coordinates, other.coordinates, strict=True
    ):
        assert np.array_equal(chosen, again)
        assert np.array_equal(chosen, np.unique(chosen))
        assert not chosen.size or (chosen[0] >= 0 and chosen[-1] < size)
    values = [np.ones(len(c)) for c in one.coordinates]
    assert np.array_equal(one.sketch(values), other.sketch(values))


def test_a_sketch_has_a_fixed_length_and_its_squared_norm_last():
    for sizes in ([0], [1], [10, 0, 7], [5 * SAMPLES]):
        sketcher = Sketcher(sizes, 0)
        sketch = sketcher.sketch([np.ones(len(c)) for c in sketcher.coordinates])
        assert sketch.shape == (CELLS + 1,)
        assert sketch[-1] == pytest.approx(sketch[:-1] @ sketch[:-1])


def test_several_buffers_are_one_vector():
    x = rows(4, length=30)
    split = Sketcher([10, 0, 20], 0)
    whole = Sketcher([30], 0)
    parts = [row[:10] for row in x], [row[:0] for row in x], [row[10:] for row in x]
    for number in range(len(x)):
        pieces = [
            part[number][chosen]
            for part, chosen in zip(parts, split.coordinates, strict=True)
        ]
        one = split.sketch(pieces)
        other = whole.sketch([x[number][whole.coordinates[0]]])
        np.testing.assert_allclose(one, other)


def test_rounding_does_not_make_a_distance_negative():
    summed = np.zeros(CELLS + 1)
    summed[0], summed[-1] = 2.0, 1.999999
    assert consensus_distance(summed, 2) == 0.0
