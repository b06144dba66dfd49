"""When ranks that step together ask each other whether to stop."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from acidmpi.clocks import Clock

PULSE_SECONDS = 0.1
"""How long a signal may go unheard; a pulse costs one small sum of all ranks."""

LONGEST_PULSE_STEPS = 4096

PULSE_SIZE = 3

Told = NDArray[np.float64]
"""Whether to stop; from the leader also the steps to the next pulse, and a one:
`PULSE_SIZE` numbers."""


@final
class Pulse:
    """Decides after which steps the ranks ask each other whether to stop.

    One rank's clock leads: its choice travels with the answers as a whole number, whose
    sum is exact, so that all ranks take the same one.

    Args:
        clock: of this rank.
        leads: whether it is this rank's clock that counts.
    """

    def __init__(self, clock: Clock, *, leads: bool) -> None:
        self._clock = clock
        self._leads = leads
        self._last_step = 0
        self._last_seconds = clock.now()
        self._apart = 1

    def due(self, step: int) -> bool:
        """Whether the ranks meet after this step."""
        return step - self._last_step >= self._apart

    def ask(self, stop: bool, step: int) -> Told:
        """What this rank says after `step`, to be averaged over all ranks."""
        wish = self._wish(step) if self._leads else 0
        return np.array([stop, wish, self._leads], np.float64)

    def hear(self, mean: Told, step: int) -> bool:
        """Take the mean of what all ranks have said; whether any wants to stop."""
        stops, apart, one = mean
        self._apart = round(apart / one)
        self._last_step, self._last_seconds = step, self._clock.now()
        return bool(stops > 0)

    def _wish(self, step: int) -> int:
        """Steps to the next pulse, by this rank's clock; at most twice as many as now."""
        seconds = max(self._clock.now() - self._last_seconds, 1e-9)
        steps = int((step - self._last_step) * PULSE_SECONDS / seconds)
        return max(1, min(steps, 2 * self._apart, LONGEST_PULSE_STEPS))
