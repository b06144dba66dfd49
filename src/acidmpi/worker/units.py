"""The time of the dynamics: in units of one mean gradient, from a wall clock or logical."""

from typing import Protocol

from acidmpi.clocks import Clock
from acidmpi.dynamics.timebase import TimeBase


class Units(Protocol):
    """Monotone time in units; all ranks share the unit, not the origin."""

    def now(self) -> float:
        """Units since the start."""
        ...


class WallUnits:
    """A wall clock divided by the unit that heartbeats agree on.

    Shared by both loops under the lock of `RankState`, which reads it and through which
    the communication loop sets it.

    Args:
        clock: seconds.
        unit_seconds: a fixed unit, or None: time stands still until `set_unit`.
    """

    def __init__(self, clock: Clock, unit_seconds: float | None = None) -> None:
        self._clock = clock
        self._base = TimeBase()
        self.unit_seconds: float | None = None
        if unit_seconds is not None:
            self.set_unit(unit_seconds)

    def now(self) -> float:
        """Units since the first unit was known."""
        return self._base.units(self._clock.now())

    def set_unit(self, unit_seconds: float) -> None:
        """From now on a unit takes `unit_seconds`; time stays continuous."""
        self._base.set_unit(unit_seconds, self._clock.now())
        self.unit_seconds = unit_seconds


class LogicalUnits:
    """A time that the training loop moves: gradient k happens at time k."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """The time moved to last."""
        return self._now

    def move_to(self, units: float) -> None:
        """Move forward; a time already passed is kept."""
        self._now = max(self._now, units)
