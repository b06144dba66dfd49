"""What the communication loop has done, for statistics, metrics and the back-off."""

from typing import Any

TYPICAL_WEIGHT = 0.2
FIRST_GUESS_SECONDS = 1e-4

COUNTS = (
    "exchanges",
    "repeated",
    "bytes_sent",
    "waiting_seconds",
    "exchanging_seconds",
    "typical_exchange_seconds",
    "by_peer",
)
"""What a checkpoint keeps."""


class Tally:
    """Counts exchanges; owned by the communication loop, read by anyone.

    Args:
        size: number of ranks.
        metrics: where exchanges are recorded, or None.
    """

    def __init__(self, size: int, metrics: Any = None) -> None:
        self.exchanges = 0
        self.repeated = 0
        """Exchanges with the same peer as the one before."""
        self.set_aside = 0
        """Neighbours that were not waited for any longer, each time."""
        self.called_off = 0
        """Exchanges that were begun here, and called off by a peer that had gone on."""
        self.bytes_sent = 0
        self.waiting_seconds = 0.0
        """From one exchange to the next match, due or not."""
        self.exchanging_seconds = 0.0
        self.typical_exchange_seconds = FIRST_GUESS_SECONDS
        """Moving average of the length of an exchange."""
        self.by_peer = [0] * size
        self._last_peer = -1
        self._metrics = metrics

    def state(self) -> dict[str, Any]:
        """The counts, for a checkpoint."""
        return {name: getattr(self, name) for name in COUNTS}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name in COUNTS:
            setattr(self, name, state[name])

    def matched(self, peer: int, seconds: float) -> None:
        """A match with `peer` came after waiting `seconds`."""
        self.waiting_seconds += seconds
        self.repeated += peer == self._last_peer
        self._last_peer = peer

    def exchanged(self, peer: int, sent_bytes: int, seconds: float) -> None:
        """An exchange is complete."""
        self.exchanges += 1
        self.bytes_sent += sent_bytes
        self.by_peer[peer] += 1
        self.exchanging_seconds += seconds
        self.typical_exchange_seconds += TYPICAL_WEIGHT * (
            seconds - self.typical_exchange_seconds
        )
        if self._metrics is not None:
            self._metrics.exchange(
                peer=peer, sent_bytes=sent_bytes, exchange_seconds=seconds
            )
