"""When exchanges are due."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from acidmpi.dynamics.arrivals import PoissonArrivals
from acidmpi.pairing.events import Meeting
from acidmpi.worker.units import LogicalUnits, Units, WallUnits

LOOKS_PER_UNIT = 3
"""A sleeping rank keeps a neighbour that asks it waiting: it looks up so often."""

SHORTEST_LOOK_SECONDS = 1e-3

MOST_DUE = 64
"""Exchanges due beyond these are given up: after a stall there is no use in a storm."""


class Demand(Protocol):
    """Counts the exchanges that this rank should start by now."""

    by_gradients: bool
    """Whether a gradient of this rank is what makes an exchange due."""

    def due(self) -> int:
        """Exchanges due and not yet served; 0 only if there are none, else a bound."""
        ...

    def begun(self) -> None:
        """Such an exchange is at hand."""
        ...

    def served(self) -> None:
        """One exchange that counts against this rank's own has been made."""
        ...

    def seconds_to_next(self) -> float:
        """A bound on how long nothing new becomes due."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, beside what follows from the time."""
        ...

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Go on from what `state` gave, or anew; events before `units` are over."""
        ...


class PoissonDemand:
    """Exchanges due by a Poisson clock, and those that own gradients call for.

    A rank that computes faster than the mean gets more exchanges than its clock gives:
    it starts further ones as soon as it is behind by more than the clock's own chance.

    Args:
        arrivals: the clock.
        units: its time.
        lag: exchanges that this rank is behind its own gradients.
        patience: how far behind it may be before it starts more.
    """

    by_gradients = False

    def __init__(
        self,
        arrivals: PoissonArrivals,
        units: WallUnits,
        lag: Callable[[], float],
        patience: float,
    ) -> None:
        self._arrivals = arrivals
        self._units = units
        self._lag = lag
        self._patience = patience
        self._due = 0

    def due(self) -> int:
        """Arrivals less those served, as far as they are worth it, or what is behind.

        The clock is looked at only once these are used up: it loses nothing meanwhile.
        """
        if self._due:
            return self._due
        arrived = self._arrivals.until(self._units.now())
        self._due = min(arrived, MOST_DUE)
        return max(self._due, math.ceil(self._lag() - self._patience))

    def set_rate(self, rate: float) -> None:
        """Become due `rate` times a unit from now on."""
        arrived = self._arrivals.until(self._units.now())
        self._due = min(self._due + arrived, MOST_DUE)
        self._arrivals.set_rate(rate)

    def begun(self) -> None:
        """Nothing to do."""

    def served(self) -> None:
        """One of them has been made."""
        self._due = max(0, self._due - 1)

    def state(self) -> dict[str, Any]:
        """Arrivals not served, and the clock."""
        return {"due": self._due, "arrivals": self._arrivals.state()}

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Go on from what `state` gave."""
        del units
        if state:
            self._due = state["due"]
            self._arrivals.restore(state["arrivals"])
        else:
            self._arrivals.begin(self._units.now())

    def seconds_to_next(self) -> float:
        """Seconds to the next arrival; a fraction of a unit if neighbours may call."""
        unit = self._units.unit_seconds
        if unit is None:
            return math.inf
        own = max(0.0, (self._arrivals.next_time - self._units.now()) * unit)
        return min(own, _look_seconds(unit))


class GradientDemand:
    """One exchange for each gradient of this rank, if it is one that asks.

    Args:
        gradients: how many this rank has made.
        units: time.
        active: whether this rank asks; else nothing is ever due.
    """

    def __init__(
        self, gradients: Callable[[], int], units: WallUnits, active: bool
    ) -> None:
        self._gradients = gradients
        self._units = units
        self._begun = 0
        self.by_gradients = active

    def due(self) -> int:
        """Own gradients less exchanges begun for them."""
        return self._gradients() - self._begun if self.by_gradients else 0

    def begun(self) -> None:
        """The exchange of one of them is at hand."""
        self._begun += 1

    def served(self) -> None:
        """Nothing to do."""

    def state(self) -> dict[str, Any]:
        """Exchanges begun."""
        return {"begun": self._begun}

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Go on from what `state` gave; else nothing is due."""
        del units
        self._begun = state.get("begun", self._gradients())

    def seconds_to_next(self) -> float:
        """A gradient wakes the loop; a passive rank looks up for those that ask it."""
        unit = self._units.unit_seconds
        return math.inf if unit is None else _look_seconds(unit)


class ScheduledDemand:
    """Exchanges due by a list that all ranks know.

    Args:
        meetings: this rank's events in order of time.
        units: time.
    """

    by_gradients = False

    def __init__(self, meetings: Iterator[Meeting], units: Units) -> None:
        self._meetings = meetings
        self._units = units
        self._next = next(meetings, None)
        self._times: deque[float] = deque()

    def due(self) -> int:
        """Events taken up and not served; 0 only if the time of none has come.

        They are taken up one moment at a time: a rank that cannot keep up would have to
        keep, and first to make, an ever longer list of them.
        """
        if not self._times and self._next and self._next.time <= self._units.now():
            self._take(self._next.time)
        return len(self._times)

    def begun(self) -> None:
        """The first of them is at hand."""

    def served(self) -> None:
        """It is over."""
        self._times.popleft()

    def state(self) -> dict[str, Any]:
        """Nothing: the list follows from the seed, and the place in it from the time."""
        return {}

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Leave out the events before `units`."""
        del state
        while self._next is not None and self._next.time < units:
            self._next = next(self._meetings, None)

    def seconds_to_next(self) -> float:
        """Unknown: the driver's own bound holds."""
        return math.inf

    def _take(self, now: float) -> None:
        while self._next is not None and self._next.time <= now:
            self._times.append(self._next.time)
            self._next = next(self._meetings, None)


class LogicalDemand(ScheduledDemand):
    """The same in logical time, which each event moves to its own moment.

    Args:
        meetings: this rank's events in order of time.
        units: logical time.
    """

    def __init__(self, meetings: Iterator[Meeting], units: LogicalUnits) -> None:
        super().__init__(meetings, units)
        self._logical = units

    def extend(self, units: float) -> None:
        """Every event before `units` is due now."""
        self._take(math.nextafter(units, -math.inf))

    def due(self) -> int:
        """Events before the bound, less those served."""
        return len(self._times)

    def begun(self) -> None:
        """It is the moment of the first of them."""
        self._logical.move_to(self._times[0])


def _look_seconds(unit_seconds: float) -> float:
    """How long a rank that neighbours may call sleeps at most."""
    return max(unit_seconds / LOOKS_PER_UNIT, SHORTEST_LOOK_SECONDS)
