"""What all ranks have made by now, between the heartbeats that tell it.

A heartbeat comes every 0.25 to 2 seconds and tells of the moment when it began. A learning
rate that follows the progress of all would follow it late, and many ranks would make a
good deal more gradients than were asked for. So the others' gradients are extrapolated, at
their recent rate, until the next heartbeat corrects that.

Nothing ends because of a forecast: a goal is reached when so many are known.
"""

from typing import NamedTuple

from acidmpi.clocks import Clock
from acidmpi.worker.ledger import Ledger

TRUSTED_PERIODS = 2.0
"""Heartbeats that stay away for longer are waited for: somebody may stand still."""


class _Told(NamedTuple):
    """What the last heartbeat has told of the others."""

    gradients: int = 0
    since_seconds: float = 0.0
    per_second: float = 0.0
    trusted_seconds: float = 0.0


class Forecast:
    """How many gradients all ranks have made.

    The communication loop owns it and replaces what was told as a whole; any thread may
    ask.

    Args:
        ledger: what is known.
        clock: where time comes from.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._told = _Told()

    def tell(
        self, since_seconds: float, per_second: float, period_seconds: float
    ) -> None:
        """The ledger has learned from a heartbeat.

        Args:
            since_seconds: when that began here, by the clock.
            per_second: gradients a second of all other ranks together, lately.
            period_seconds: time to the next heartbeat, about.
        """
        others = self._ledger.total_gradients - self._ledger.gradients
        trusted = TRUSTED_PERIODS * period_seconds
        self._told = _Told(others, since_seconds, per_second, trusted)

    @property
    def total(self) -> float:
        """Gradients of all ranks by now.

        Never fewer than are known; of the others at most twice as many as were told.
        """
        ledger = self._ledger
        gradients, since, per_second, trusted = self._told
        passed = min(self._clock.now() - since, trusted)
        since_then = min(passed * per_second, gradients)
        return max(ledger.total_gradients, ledger.gradients + gradients + since_then)

    @property
    def complete(self) -> bool:
        """Whether the goal should have been reached by now."""
        goal = self._ledger.goal
        return goal is not None and self.total >= goal
