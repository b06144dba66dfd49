"""The two clocks of a rank: units of time from seconds, and theta from units.

Both are integrals of a rate that changes now and then, and both only grow.
"""

import math

from acidmpi.errors import ConfigError


class _Integral:
    """Integral of a piecewise constant, non-negative rate; continuous and monotone."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._since = 0.0
        self._base = 0.0
        self._highest = 0.0

    def set_rate(self, rate: float, position: float) -> None:
        self._base = self.at(position)
        self._since = position
        self._rate = rate

    def at(self, position: float) -> float:
        value = self._base + self._rate * (position - self._since)
        # Two loops read their clocks in any order; neither may see time go back.
        self._highest = max(self._highest, value)
        return self._highest


class TimeBase:
    """Units of time (mean seconds of a gradient) that have passed on this rank.

    It stands at 0 until a unit is known; a new unit counts from the moment it is set.
    """

    def __init__(self) -> None:
        self._units = _Integral()
        self._seconds_per_unit: float | None = None

    @property
    def seconds_per_unit(self) -> float | None:
        """The unit in use, or None while none is known."""
        return self._seconds_per_unit

    def set_unit(self, seconds_per_unit: float, now: float) -> None:
        """Count units of `seconds_per_unit` from `now` on."""
        if not (math.isfinite(seconds_per_unit) and seconds_per_unit > 0):
            raise ConfigError(
                "a unit of time must be a positive number of seconds, got "
                f"{seconds_per_unit}"
            )
        self._units.set_rate(1.0 / seconds_per_unit, now)
        self._seconds_per_unit = seconds_per_unit

    def units(self, now: float) -> float:
        """Units that have passed at `now` seconds; never less than before."""
        return self._units.at(now)


class RationedTheta:
    """Theta that also waits for exchanges: so much of it for each, and a small reserve.

    The constants are made for a rate of exchanges, and mixing that goes on while
    exchanges stall amplifies what the ranks differ by: on a ring of 64, twice too much
    mixing per exchange already diverges. A measured rate tells of it too late, a heartbeat
    or several after the machine has slowed down. So theta grows with time, but never past
    what the exchanges made so far allow. The ration is what a unit of time brings at one
    exchange a unit, whatever the rate: eta is proportional to the rate.

    Where exchanges come as often as asked, by chance and not in order, the reserve runs
    out now and then; a few per cent of the mixing is lost by that.

    Args:
        ration: theta for each exchange; infinite for no bound at all.
        reserve: exchanges that may be saved up; half of them are there at the start.
    """

    def __init__(self, ration: float = math.inf, reserve: float = 12.0) -> None:
        self._ration = ration
        self._reserve = reserve
        self._eta = 0.0
        self._units = 0.0
        self._theta = 0.0
        self._ceiling = ration * reserve / 2

    def set_eta(self, eta: float, units: float) -> None:
        """Mix at `eta` per unit from `units` on."""
        if not (math.isfinite(eta) and eta >= 0):
            raise ConfigError(f"eta must be finite and not negative, got {eta}")
        self.at(units)
        self._eta = eta

    def set_ration(self, ration: float) -> None:
        """Theta for each exchange from now on; what is saved up is scaled with it."""
        if math.isfinite(self._ration) and self._ration > 0:
            saved = (self._ceiling - self._theta) * ration / self._ration
            self._ceiling = self._theta + saved
        self._ration = ration

    def at(self, units: float) -> float:
        """Theta at `units`; never less than before."""
        gained = self._eta * max(0.0, units - self._units)
        self._units = max(self._units, units)
        self._theta = min(self._theta + gained, self._ceiling)
        return self._theta

    def state(self) -> dict[str, float]:
        """Where it stands; eta is set anew by whoever knows it."""
        return {
            "units": self._units,
            "theta": self._theta,
            "ceiling": self._ceiling,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Stand where `state` says."""
        self._units, self._theta = state["units"], state["theta"]
        self._ceiling = state["ceiling"]

    def count_exchange(self) -> None:
        """An exchange has been made."""
        saved = self._theta + self._ration * self._reserve
        self._ceiling = min(self._ceiling + self._ration, saved)
