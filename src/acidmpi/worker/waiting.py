"""What one rank waits for, and since when: told to others when it takes too long.

Owned by the communication loop. It reads the loop's parts and changes none of them.
"""

from typing import Protocol

from acidmpi.clocks import Clock
from acidmpi.pairing.machine import Machine
from acidmpi.telemetry.stalls import Report, Wait
from acidmpi.worker.exchange import Exchanger
from acidmpi.worker.ledger import Ledger


class Owner(Protocol):
    """The loop, as far as it is looked at."""

    machine: Machine


class Waiting:
    """Moments since which this rank waits.

    Args:
        loop: has the pairing machine.
        exchanger: runs exchanges.
        ledger: knows of this rank's compute loop.
        clock: where time comes from.
    """

    def __init__(
        self, loop: Owner, exchanger: Exchanger, ledger: Ledger, clock: Clock
    ) -> None:
        self._loop = loop
        self._exchanger = exchanger
        self._ledger = ledger
        self._clock = clock
        self.asked_seconds = clock.now()
        """When the question was asked that is open now."""
        self._round_seconds = self._computed_seconds = clock.now()
        self._gradients = 0

    @property
    def answer_seconds(self) -> float:
        """How long the answer has been waited for."""
        return self._clock.now() - self.asked_seconds

    def round_over(self, now: float) -> float:
        """A heartbeat is complete; returns the time since the one before."""
        seconds, self._round_seconds = now - self._round_seconds, now
        self._look_at_gradients(now)
        return seconds

    def report(self, rank: int, now: float) -> Report:
        """What this rank would tell others now."""
        self._look_at_gradients(now)
        ledger = self._ledger
        return Report(
            rank=rank,
            gradients=ledger.gradients,
            computed_seconds=now - self._computed_seconds,
            waits=(*self._own_waits(now), *self._common_waits(now)),
            left=ledger.retired,
        )

    def _look_at_gradients(self, now: float) -> None:
        """The time of the last gradient, as exactly as this is called."""
        if self._ledger.gradients != self._gradients:
            self._gradients = self._ledger.gradients
            self._computed_seconds = now

    def _own_waits(self, now: float) -> list[Wait]:
        """Waits for one peer."""
        machine, exchanger = self._loop.machine, self._exchanger
        if machine.matched is not None:
            since = exchanger.waiting_since
            seconds = 0.0 if since is None else now - since
            size = exchanger.waiting_bytes
            return [Wait("chunk", machine.matched, size, seconds)]
        if machine.asking is None:
            return []
        return [Wait("answer", machine.asking, 0, now - self.asked_seconds)]

    def _common_waits(self, now: float) -> list[Wait]:
        """Waits for all ranks together."""
        seconds = now - self._round_seconds
        return [Wait("heartbeat", None, 0, seconds)]
