"""Poisson arrivals whose rate may change while they are waited for."""

import math
from typing import Any

import numpy as np

from acidmpi.errors import ConfigError

MOST_DRAWN = 1000
"""Mean arrivals since the last look up to which each is drawn; more are drawn at once."""

LARGEST_MEAN = 1e18
"""NumPy draws from no larger one."""


class PoissonArrivals:
    """Counts arrivals of a Poisson process.

    The gap to the next arrival is drawn once, as an amount of rate x time still to pass
    (exponential with mean 1), so a change of rate stretches or shrinks what is left of
    it: the process is exact, whenever and however often it is looked at.

    After a standstill, or at a rate beyond what anybody can serve, arrivals are drawn by
    their number: a look must not take longer than what it counts is late.

    Args:
        rate: arrivals per unit of time.
        generator: where chance comes from; usually one draw for each arrival, and one
            ahead.
        start: the time from which arrivals count.
    """

    def __init__(
        self, rate: float, generator: np.random.Generator, start: float = 0.0
    ) -> None:
        self._generator = generator
        self._time = start
        self._left = float(generator.exponential())
        self.set_rate(rate)

    @property
    def next_time(self) -> float:
        """When the next arrival comes if the rate stays; infinite at rate 0."""
        if self._rate == 0:
            return math.inf
        return self._time + self._left / self._rate

    def set_rate(self, rate: float) -> None:
        """Use `rate` from the time of the last `until` on."""
        if not (math.isfinite(rate) and rate >= 0):
            raise ConfigError(f"rate must be finite and not negative, got {rate}")
        self._rate = rate

    def state(self) -> dict[str, Any]:
        """The time it was looked at last, what is left of the gap, and the generator."""
        chance = dict(self._generator.bit_generator.state)
        return {"time": self._time, "left": self._left, "generator": chance}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._time, self._left = state["time"], state["left"]
        self._generator.bit_generator.state = state["generator"]

    def begin(self, time: float) -> None:
        """Count arrivals from `time` on."""
        self._time = time

    def until(self, time: float) -> int:
        """Number of arrivals since the last call; 0 if `time` is not later than it."""
        if time <= self._time:
            return 0
        passed = self._rate * (time - self._time)
        self._time = time
        if passed > self._left + MOST_DRAWN:
            return self._draw_number(passed)
        arrivals = 0
        while passed >= self._left:
            passed -= self._left
            self._left = float(self._generator.exponential())
            arrivals += 1
        self._left -= passed
        return arrivals

    def _draw_number(self, passed: float) -> int:
        """The arrivals in `passed`, the next one among them, and the gap that follows."""
        others = min(passed - self._left, LARGEST_MEAN)
        self._left = float(self._generator.exponential())
        return 1 + int(self._generator.poisson(others))
