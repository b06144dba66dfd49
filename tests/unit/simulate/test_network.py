"""Virtual seconds: order of events, links, gradient times."""

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.simulate.network import EventQueue, GradientTimes, Link, Network, drawn


def test_events_come_in_order_of_time_and_of_planning():
    events, seen = EventQueue(), []
    for time, name in [(2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "late")]:
        events.at(time, lambda n=name: seen.append((n, events.now())))
    events.run(3.0)
    assert seen == [("a", 1.0), ("b", 1.0), ("c", 2.0)]
    assert events.now() == 3.0


def test_what_is_planned_for_the_past_comes_next():
    events, seen = EventQueue(), []
    events.at(1.0, lambda: events.at(0.5, lambda: seen.append(events.now())))
    events.run(2.0)
    assert seen == [1.0]


def test_an_edge_of_its_own_goes_both_ways():
    network = Network(Link(0.0, 100.0), {(1, 2): Link(0.0, 10.0)})
    assert network.transfer_seconds(2, 1, 50) == 5.0
    assert network.transfer_seconds(0, 1, 50) == 0.5


def test_drawn_times_have_the_mean_and_the_spread_asked_for():
    generator = np.random.default_rng(0)
    values = [drawn(2.0, 0.3, generator) for _ in range(4000)]
    assert np.mean(values) == pytest.approx(2.0, rel=0.02)
    assert np.std(values) / np.mean(values) == pytest.approx(0.3, rel=0.05)
    assert drawn(2.0, 0.0, generator) == 2.0


def test_the_unit_is_ranks_over_gradients_per_second():
    times = GradientTimes.of(4, 0.1, straggler=3.0)
    assert times.means == (0.1, 0.1, 0.1, pytest.approx(0.3))
    assert times.unit_seconds == pytest.approx(4 / (30 + 1 / 0.3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Network(Link(0.0, 0.0)), "bandwidth"),
        (lambda: Network(Link(-1.0)), "latency"),
        (lambda: Network(links={(0, 1): Link(0.0, -5.0)}), "bandwidth"),
        (lambda: Network(spread=-1), "spread"),
        (lambda: GradientTimes.of(4, 0.0), "positive time"),
        (lambda: GradientTimes.of(4, 1.0, straggler=0.5), "stragglers"),
        (lambda: GradientTimes.of(4, 1.0, stragglers=5), "5 of 4"),
    ],
)
def test_what_cannot_be_is_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
