"""What a rank tells others unasked: flags, failures, what it waits for; and its notice.

Owned by the communication loop.
"""

from collections.abc import Sequence

from acidmpi.errors import RemoteError
from acidmpi.mpi.collectives import describe
from acidmpi.pairing.wire import FAIL, NEWS, STOP, Notice, Wire
from acidmpi.worker.keeping import Cutter
from acidmpi.worker.ledger import FAILED, Ledger
from acidmpi.worker.pulse import Pulse


class Teller:
    """Tells others.

    Args:
        wire: takes the messages.
        ledger: knows this rank's counts, flags and failure.
        pulse: knows the ranks and the constants.
        cutter: knows how many parts of checkpoints have been taken, or None.
    """

    def __init__(
        self, wire: Wire, ledger: Ledger, pulse: Pulse, cutter: Cutter | None
    ) -> None:
        self._wire = wire
        self._ledger = ledger
        self._pulse = pulse
        self._cutter = cutter
        self._told_flags = 0
        self._told_failure = False

    @property
    def has_news(self) -> bool:
        """Whether flags have been raised that have not been told."""
        return self._ledger.flags != self._told_flags

    def notice(self) -> Notice:
        """What rides on every message of this rank."""
        ledger = self._ledger
        taken = 0 if self._cutter is None else self._cutter.promised
        return Notice(ledger.flags, ledger.gradients, self._pulse.alpha_tilde, taken)

    def tell_flags(self, neighbours: Sequence[int]) -> None:
        """Pass news on to the neighbours; a failure of this rank to everyone."""
        self._told_flags = self._ledger.flags
        if self._told_flags & FAILED:
            self.tell_failure()
        for peer in neighbours:
            self._wire.send(peer, STOP, self.notice())

    def tell_waits(self, text: str) -> None:
        """Say what this rank waits for to every other one."""
        self._tell_all(NEWS, text)

    def tell_failure(self) -> None:
        """Send this rank's own error to every rank, once."""
        failure = self._ledger.failure
        if failure is None or isinstance(failure, RemoteError) or self._told_failure:
            return
        self._told_failure = True
        self._tell_all(FAIL, describe(failure))

    def _tell_all(self, kind: int, text: str) -> None:
        for peer in range(self._pulse.size):
            if peer != self._pulse.rank:
                self._wire.send(peer, kind, self.notice(), text)
