"""The heartbeat in virtual time: unit, rate and constants follow from what ranks did.

It does what `worker.pulse` does with its sums, with the same windows and the same
governor. All ranks hear of a round at one moment; real ones may be a round apart.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from acidmpi.dynamics.coefficients import BASELINE
from acidmpi.dynamics.governor import Governor
from acidmpi.simulate.network import EventQueue
from acidmpi.simulate.protocol_members import Member, ProtocolOptions
from acidmpi.worker.windows import (
    ENOUGH_EXCHANGES,
    RATE_EXCHANGES,
    UNIT_GRADIENTS,
    remember,
)


class Field(IntEnum):
    """Places of what is summed."""

    ELAPSED = 0
    GRADIENTS = 1
    EXCHANGES = 2


class VirtualPulse:
    """Beats every `heartbeat_seconds` and steers the ranks.

    Args:
        members: all ranks.
        options: the run's.
        events: the clock.
    """

    def __init__(
        self, members: Sequence[Member], options: ProtocolOptions, events: EventQueue
    ) -> None:
        self.coefficients = BASELINE
        """Constants in use."""
        self._members = members
        self._options = options
        self._events = events
        steered = options.coefficients(options.comm_rate) != BASELINE
        at_one = options.coefficients(1.0)
        self._governor = Governor(at_one, options.comm_rate) if steered else None
        self._before = np.zeros(len(Field))
        self._lately = np.zeros(len(Field))
        self._steadily = np.zeros(len(Field))

    def beat(self) -> None:
        """One round, and the next one planned."""
        self._digest()
        self._events.after(self._options.heartbeat_seconds, self.beat)

    @property
    def comm_rate(self) -> float:
        """Exchanges per rank and unit over the whole run; 0 when unknown."""
        sums, unit = self._sums(), self._members[0].units.unit_seconds
        if unit is None or not sums[Field.ELAPSED]:
            return 0.0
        if self._options.unit_seconds is not None:
            return float(sums[Field.EXCHANGES] * unit / sums[Field.ELAPSED])
        return float(sums[Field.EXCHANGES] / max(sums[Field.GRADIENTS], 1.0))

    def _sums(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        sums = np.zeros(len(Field))
        sums[Field.ELAPSED] = self._events.now() * len(self._members)
        sums[Field.GRADIENTS] = sum(m.ledger.gradients for m in self._members)
        sums[Field.EXCHANGES] = sum(m.tally.exchanges for m in self._members)
        return sums

    def _digest(self) -> None:
        sums, size = self._sums(), len(self._members)
        step, self._before = sums - self._before, sums
        few, each = RATE_EXCHANGES
        remember(self._steadily, step, Field.EXCHANGES, few + each * size)
        remember(self._lately, step, Field.GRADIENTS, UNIT_GRADIENTS * size)
        self._set_unit()
        if self._governor is not None:
            ready = all(m.tally.exchanges >= ENOUGH_EXCHANGES for m in self._members)
            self._governor.heartbeat(self._rate(), ready)
            self._set(self._governor)

    def _set_unit(self) -> None:
        elapsed, gradients, _ = self._lately
        if self._options.unit_seconds is None and gradients > 0:
            for member in self._members:
                member.units.set_unit(float(elapsed / gradients))

    def _rate(self) -> float:
        elapsed, gradients, exchanges = self._steadily
        unit = self._options.unit_seconds
        if unit is not None:
            return float(exchanges * unit / elapsed) if elapsed else 0.0
        return float(exchanges / max(gradients, 1.0))

    def _set(self, governor: Governor) -> None:
        found = governor.coefficients(age_in_intervals=1.0)
        if found != self.coefficients:
            self.coefficients = found
            for member in self._members:
                member.state.set_eta(found.eta)
