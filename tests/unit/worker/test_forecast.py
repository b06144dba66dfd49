"""What all have made by now, between two heartbeats."""

from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock
from acidmpi.worker.forecast import TRUSTED_PERIODS, Forecast
from acidmpi.worker.ledger import Ledger


def make(own, others, goal=None):
    """A forecast of rank 0 of 3 right after a heartbeat that told of `others`."""
    clock, ledger = ManualClock(10.0), Ledger(0, 3, goal)
    for _ in range(own):
        ledger.count_gradient(None, 1)
    ledger.learn(1, others)
    return Forecast(ledger, clock), ledger, clock


def test_before_the_first_heartbeat_what_is_known_is_all():
    forecast, _, clock = make(3, 4)
    clock.advance(5.0)
    assert forecast.total == 7
    assert not forecast.complete, "there is no goal"


def test_own_gradients_are_counted_and_those_of_others_extrapolated():
    forecast, ledger, clock = make(3, 100)
    forecast.tell(since_seconds=9.0, per_second=20.0, period_seconds=2.0)
    assert forecast.total == 123, "a second has passed since this rank gave its part"
    ledger.count_gradient(None, 1)
    clock.advance(0.5)
    assert forecast.total == 134
    ledger.learn(1, 150)
    assert forecast.total == 154, "more is known than was extrapolated"


def test_a_heartbeat_that_stays_away_is_waited_for():
    forecast, _, clock = make(0, 1000)
    forecast.tell(since_seconds=10.0, per_second=10.0, period_seconds=2.0)
    clock.advance(100.0)
    assert forecast.total == 1000 + 10 * 2.0 * TRUSTED_PERIODS


def test_others_are_at_most_doubled():
    forecast, _, clock = make(5, 8)
    forecast.tell(since_seconds=10.0, per_second=1e6, period_seconds=1.0)
    clock.advance(1.0)
    assert forecast.total == 5 + 16


def test_complete_is_not_stopped():
    forecast, ledger, clock = make(10, 85, goal=100)
    forecast.tell(since_seconds=10.0, per_second=10.0, period_seconds=1.0)
    assert not forecast.complete
    clock.advance(0.5)
    assert forecast.complete
    assert not ledger.stopped, "nothing ends because of a forecast"


@given(
    own=st.integers(0, 50),
    others=st.integers(0, 500),
    rate=st.floats(0, 1e4),
    seconds=st.floats(0, 100),
    news=st.integers(0, 2000),
)
def test_never_fewer_than_are_known(own, others, rate, seconds, news):
    forecast, ledger, clock = make(own, others)
    forecast.tell(since_seconds=10.0, per_second=rate, period_seconds=1.0)
    clock.advance(seconds)
    ledger.learn(2, news)
    known = ledger.total_gradients
    assert known <= forecast.total <= max(known, own + 2 * others)
