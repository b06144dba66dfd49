"""Puts the moment on what the two loops record: seconds, units, own gradients."""

from typing import Any

from acidmpi.clocks import Clock
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.units import Units


class Recorder:
    """Stamps records and hands them to a metrics writer.

    Args:
        metrics: a `telemetry.metrics.Metrics`, or None: nothing is recorded.
        clock: seconds; those of a record count from here.
        units: time in units.
        ledger: this rank's own count of gradients.
    """

    def __init__(
        self, metrics: Any, clock: Clock, units: Units, ledger: Ledger
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._units = units
        self._ledger = ledger
        self._began = clock.now()

    def gradient(self, loss: float | None, lr: float) -> None:
        """A gradient event."""
        if self._metrics is not None:
            self._metrics.gradient(*self._stamp(), loss, lr)

    def exchange(self, peer: int, sent_bytes: int, exchange_seconds: float) -> None:
        """A completed exchange."""
        if self._metrics is not None:
            self._metrics.exchange(*self._stamp(), peer, sent_bytes, exchange_seconds)

    def heartbeat(
        self, total_gradients: int, comm_rate: float, consensus_distance: float
    ) -> None:
        """The result of a heartbeat."""
        if self._metrics is not None:
            self._metrics.heartbeat(
                *self._stamp(), total_gradients, comm_rate, consensus_distance
            )

    def death(self, peer: int, last: str) -> None:
        """The news of a death."""
        if self._metrics is not None:
            self._metrics.death(*self._stamp(), peer, last)

    def recovery(self, peer: int, recovered_seconds: float) -> None:
        """The first exchange after a death that this rank was near to."""
        if self._metrics is not None:
            self._metrics.recovery(*self._stamp(), peer, recovered_seconds)

    def evaluation(self, test_loss: float | None, test_accuracy: float | None) -> None:
        """An evaluation of an average."""
        if self._metrics is not None:
            self._metrics.evaluation(*self._stamp(), test_loss, test_accuracy)

    def _stamp(self) -> tuple[float, float, int]:
        seconds = self._clock.now() - self._began
        return seconds, self._units.now(), self._ledger.gradients
