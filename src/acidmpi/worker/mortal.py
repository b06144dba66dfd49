"""The communication loop of ranks that go on when others die.

What it adds to `CommunicationLoop`:
- it hears of deaths, from MPI and from operations that fail, and lets `Survival` act;
- an exchange whose peer has died ends on this side, and the next one begins;
- heartbeats and averages travel as messages, because a reduction ends with the first death;
- all ranks end together by telling each other: who learns that all have ended tells
  everyone, as its last message, before it leaves. So if one survivor leaves, all will,
  whoever dies meanwhile.
"""

from typing import Any

from acidmpi.errors import PeerDied
from acidmpi.pairing.messages import Kind
from acidmpi.pairing.wire import (
    BEAT,
    CALL,
    END,
    FAIL,
    NEWS,
    STOP,
    TOTAL,
    Message,
)
from acidmpi.progress import Deadline, Pace, Steps
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.loop import CommunicationLoop
from acidmpi.worker.membership import Deed
from acidmpi.worker.muster import Muster
from acidmpi.worker.survival import EXCHANGE, Survival
from acidmpi.worker.watchdog import COMPLETED

DEEDS = {
    int(Kind.REQUEST): "it asked rank {} for an exchange",
    int(Kind.ACCEPT): "it accepted an exchange with rank {}",
    int(Kind.BUSY): "it was busy when rank {} asked",
    int(Kind.CANCEL): "it called off an exchange with rank {}",
    int(Kind.DROPPED): "it took back an exchange with rank {}",
    STOP: "it told rank {} to stop",
    BEAT: "it sent its heartbeat to rank {}",
    TOTAL: "it told rank {} the totals of a heartbeat",
    CALL: "it asked rank {} for its part of an average",
    END: "it told rank {} that all have ended",
    NEWS: "it told rank {} what it waits for",
    FAIL: "it told rank {} that it has failed",
    COMPLETED: "it completed an exchange with rank {}",
}


class MortalLoop(CommunicationLoop):
    """A `CommunicationLoop` that survives deaths of other ranks.

    Args:
        survival: takes the dead out.
        rest: as for `CommunicationLoop`.
    """

    def __init__(self, *, survival: Survival, **rest: Any) -> None:
        super().__init__(**rest)
        self._survival = survival
        self._membership = survival.membership
        self.watchdog.dead = self._membership.dead
        survival.last = self._last
        self._last_heard: set[int] = set()
        """Ranks whose last message has come."""

    def connect(self, muster: Muster, collecting: Collecting) -> None:
        """Let these two send and hear messages; to be called once, before the start."""
        self._muster, self._collecting = muster, collecting
        muster.send = collecting.send = self._send_load

    def _send_load(self, peer: int, kind: int, load: bytes) -> None:
        self._wire.send(peer, kind, self._teller.notice(), "", load)

    def _look_at_sums(self, now: float) -> None:
        if self._survival.look(now):
            self._events += 1
        super()._look_at_sums(now)

    def _exchange(self) -> Steps[None]:
        peer = self.machine.matched
        assert peer is not None
        survival, landed = self._survival, self._exchanger.landed
        survival.busy, exchanged = peer, False
        try:
            for pace in self._begun():
                yield pace
                if self._called_off:
                    break
            else:
                exchanged = True
        except PeerDied:
            self._lose(peer, self._exchanger.landed - landed)
        finally:
            survival.busy = None
        if survival.unsettled:
            survival.settle(exchanged=exchanged)

    def _lose(self, peer: int, landed: int) -> None:
        """The peer of the exchange at hand has died in it."""
        lost = self._exchanger.drop()
        what = f"{landed} chunks kept, {lost} on their way lost"
        self._survival.bury(peer, f"{EXCHANGE} ({what})")
        self._events += 1

    def _last(self, peer: int) -> Deed | None:
        """What `peer` did last, as this rank knows."""
        heard = self.watchdog.last(peer)
        if heard is None:
            return None
        return Deed(DEEDS.get(heard[1], "it sent rank {} a message"), heard[0])

    def _hear(self, message: Message) -> None:
        if END <= message.kind <= CALL:
            self._hear_for_all(message)
            message = message._replace(kind=STOP)
        super()._hear(message)

    def _hear_for_all(self, message: Message) -> None:
        """What has nothing to do with pairs."""
        source, kind, _, _, load = message
        if kind == CALL:
            self._collecting.hear(source, load)
        elif kind == END:
            self._last_heard.add(source)
        else:
            self._muster.hear(source, kind, load)

    def _drain(self) -> Steps[None]:
        """Tell everyone that all have ended; wait until everyone has said so."""
        membership = self._membership
        for peer in membership.others:
            self._wire.send(peer, END, self._teller.notice())
        seconds = self.limits.deadline_seconds
        deadline = Deadline(seconds, self._clock, "the end of all ranks")
        while not (
            self._last_heard.issuperset(membership.others)
            and self._wire.quiet
            and self._exchanger.quiet
        ):
            deadline.check()
            yield Pace.POLL
        self._wire.close()
