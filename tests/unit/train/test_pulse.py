"""Pulses: as far apart as one clock says, at the same steps on all ranks."""

import numpy as np
import pytest

from acidmpi.clocks import ManualClock
from acidmpi.train.pulse import LONGEST_PULSE_STEPS, PULSE_SECONDS, Pulse


class Ranks:
    """Several ranks whose steps take different times."""

    def __init__(self, seconds_per_step):
        self.seconds_per_step = seconds_per_step
        self.clocks = [ManualClock() for _ in seconds_per_step]
        self.pulses = [Pulse(c, leads=not k) for k, c in enumerate(self.clocks)]

    def step(self, number, stop=()):
        """Make one step; what each rank heard, or None if there was no pulse."""
        for clock, seconds in zip(self.clocks, self.seconds_per_step, strict=True):
            clock.advance(seconds)
        due = {pulse.due(number) for pulse in self.pulses}
        assert len(due) == 1
        return self.meet(number, stop) if due.pop() else None

    def meet(self, number, stop):
        told = [p.ask(k in stop, number) for k, p in enumerate(self.pulses)]
        mean = np.mean(told, axis=0)
        return [pulse.hear(mean, number) for pulse in self.pulses]

    def pulses_until(self, last):
        return [n for n in range(1, last + 1) if self.step(n) is not None]


class OwnClocks(Ranks):
    """Planted fault: each rank goes by its own clock."""

    def meet(self, number, stop):
        for pulse in self.pulses:
            pulse._leads = True
        return [pulse.hear(pulse.ask(False, number), number) for pulse in self.pulses]


DIFFERENT = [0.001, 0.01, 0.0003, 0.0011, 0.5]


def test_ranks_with_different_clocks_meet_at_the_same_steps():
    pulses = Ranks(DIFFERENT).pulses_until(2000)
    assert pulses[:3] == [1, 3, 7]
    steps = PULSE_SECONDS / DIFFERENT[0]
    assert np.diff(pulses)[-1] == pytest.approx(steps, abs=1)


def test_ranks_that_go_by_their_own_clocks_would_not():
    with pytest.raises(AssertionError):
        OwnClocks(DIFFERENT).pulses_until(2000)


@pytest.mark.parametrize(("seconds", "apart"), [(10.0, 1), (1e-9, LONGEST_PULSE_STEPS)])
def test_pulses_stay_within_bounds(seconds, apart):
    pulses = Ranks([seconds, 1.0, 1.0]).pulses_until(5 * apart + 20)
    assert max(np.diff(pulses)) == apart


def test_slower_steps_bring_pulses_nearer_at_once():
    ranks = Ranks([0.001] * 3)
    pulses = ranks.pulses_until(1000)
    ranks.seconds_per_step = [0.1] * 3
    after = [n for n in range(1001, 1200) if ranks.step(n) is not None]
    assert np.diff(pulses)[-1] > 50
    assert np.diff(after)[1] == 1


@pytest.mark.parametrize("stop", [(0,), (2,), (0, 1, 2)])
def test_one_wish_to_stop_is_heard_by_all(stop):
    ranks = Ranks([0.01, 0.02, 0.03])
    assert ranks.step(1) == [False] * 3
    assert ranks.step(2, stop) is None
    assert ranks.step(3, stop) == [True] * 3
