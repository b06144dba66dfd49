"""Bins of time that keep every event in a fixed memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.report.timeline import BINS, FIRST_WIDTH, Timeline, common_width, together

TIMES = st.lists(st.floats(0, 1e5), min_size=1, max_size=60)


def filled(times, name="a"):
    timeline = Timeline()
    for number, seconds in enumerate(times):
        timeline.add(name, seconds, float(number))
    return timeline


@given(TIMES)
def test_no_event_is_lost_and_each_lies_in_its_bin(times):
    timeline = filled(times)
    sums, counts = timeline.read("a", timeline.width)
    expected = np.zeros(BINS), np.zeros(BINS)
    for number, seconds in enumerate(times):
        expected[0][int(seconds / timeline.width)] += number
        expected[1][int(seconds / timeline.width)] += 1
    np.testing.assert_allclose(sums, expected[0])
    np.testing.assert_array_equal(counts, expected[1])


@given(TIMES, TIMES)
def test_timelines_of_different_widths_add_up(first, second):
    timelines = [filled(first), filled(second)]
    width = common_width(timelines)
    _, counts = together(timelines, "a")
    expected = np.bincount([int(t / width) for t in first + second], minlength=BINS)
    np.testing.assert_array_equal(counts, expected)


def test_half_of_the_bins_are_used_at_least():
    timeline = filled(np.linspace(0, 1000, 3000))
    _, counts = timeline.read("a", timeline.width)
    assert BINS / 2 <= np.count_nonzero(counts) <= BINS
    assert np.log2(timeline.width / FIRST_WIDTH) % 1 == 0


def test_what_was_never_added_is_zero():
    assert not np.any(Timeline().read("a", FIRST_WIDTH))
    assert not np.any(together([], "a"))


def test_bins_much_wider_than_the_timeline_hold_all_of_it():
    sums, counts = filled([0.1, 0.2, 0.9]).read("a", FIRST_WIDTH * BINS * 8)
    assert (sums[0], counts[0], counts.sum()) == (3, 3, 3)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf"), 1e13])
def test_what_is_no_time_is_refused(seconds):
    with pytest.raises(ValueError, match="seconds must be"):
        Timeline().add("a", seconds, 1.0)
