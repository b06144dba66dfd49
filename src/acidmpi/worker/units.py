"""The time of the dynamics, in units of one mean gradient: by a clock, or logical."""

import threading
from typing import Any, Protocol

from acidmpi.clocks import Clock
from acidmpi.dynamics.timebase import TimeBase


class Units(Protocol):
    """Monotone time in units; all ranks share the unit, not the origin."""

    def now(self) -> float:
        """Units since the start."""
        ...


class WallUnits:
    """A wall clock divided by the unit that heartbeats agree on.

    Read by both loops and set by the communication loop, under a lock of its own that
    is never held while another one is taken.

    Until a unit is known, time is counted in this rank's own gradients: all it has. Few
    of them pass before the first heartbeat, and nothing is mixed yet.

    Args:
        clock: seconds.
        unit_seconds: a fixed unit, or None: to be measured.
    """

    def __init__(self, clock: Clock, unit_seconds: float | None = None) -> None:
        self._clock = clock
        self._base = TimeBase()
        self._lock = threading.Lock()
        self._counted: float = 0
        if unit_seconds is not None:
            self.set_unit(unit_seconds)

    @property
    def unit_seconds(self) -> float | None:
        """The unit in use; None while none is known."""
        return self._base.seconds_per_unit

    def now(self) -> float:
        """Units since the start."""
        with self._lock:
            return self._counted + self._base.units(self._clock.now())

    def count_gradient(self) -> None:
        """One more gradient of this rank: a unit, as long as none is known."""
        with self._lock:
            if self._base.seconds_per_unit is None:
                self._counted += 1

    def state(self) -> dict[str, Any]:
        """The time and the unit."""
        return {"now": self.now(), "unit_seconds": self.unit_seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the time and the unit that `state` gave."""
        with self._lock:
            self._counted = state["now"]
            if state["unit_seconds"] is not None and self.unit_seconds is None:
                self._base.set_unit(state["unit_seconds"], self._clock.now())

    def set_unit(self, unit_seconds: float) -> None:
        """From now on a unit takes `unit_seconds`; time stays continuous."""
        with self._lock:
            self._base.set_unit(unit_seconds, self._clock.now())


class LogicalUnits:
    """A time that the training loop moves: gradient k happens at time k."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """The time moved to last."""
        return self._now

    def count_gradient(self) -> None:
        """Time is moved by `move_to` only."""

    def state(self) -> dict[str, Any]:
        """The time."""
        return {"now": self._now, "unit_seconds": 1.0}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the time that `state` gave."""
        self._now = state["now"]

    def move_to(self, units: float) -> None:
        """Move forward; a time already passed is kept."""
        self._now = max(self._now, units)
