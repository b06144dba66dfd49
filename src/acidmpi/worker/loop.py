"""The communication loop of one rank: pair, exchange, answer, tell, and end together.

Owned by whoever drives it, one thread at a time; the compute loop talks to it through the
`Ledger` and the `RankState` only. `advance()` never blocks and never sleeps.

How it ends: a rank whose compute loop has left says so in the heartbeat once it is in no
exchange and asks nobody. The round that counts all ranks so is the same everywhere, and
after it nobody starts anything. Then the numbers of control messages are compared, and
the loop is over when each that was sent has come.
"""

import numpy as np

from acidmpi.clocks import Clock
from acidmpi.errors import AcidError, PeerFailed, RemoteError
from acidmpi.mpi.reductions import MPIError
from acidmpi.pairing.machine import Machine
from acidmpi.pairing.messages import Kind, Sends
from acidmpi.pairing.wire import FAIL, NEWS, STOP, UNHURRIED, Message, Notice, Wire
from acidmpi.progress import Deadline, Pace, Steps
from acidmpi.progress.limits import Limits
from acidmpi.worker.averaging import Averaging
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.demand import Demand
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.keeping import Cutter
from acidmpi.worker.ledger import BROKEN, FAILED, Ledger
from acidmpi.worker.pulse import Pulse
from acidmpi.worker.tally import Tally
from acidmpi.worker.teller import Teller
from acidmpi.worker.waiting import Waiting
from acidmpi.worker.watchdog import COMPLETED, Watchdog

REQUEST, ACCEPT, BUSY = int(Kind.REQUEST), int(Kind.ACCEPT), int(Kind.BUSY)
CANCEL, DROPPED = int(Kind.CANCEL), int(Kind.DROPPED)

OPENING = (REQUEST, ACCEPT)
"""What both ends of a match have sent or received before its exchange."""

APART = frozenset((CANCEL, DROPPED, FAIL, NEWS, STOP))
"""Kinds that this loop hears itself; all others are the machine's."""

ANSWER_SECONDS = 2e-3
"""Longest sleep while a peer is waited for."""

PULSE_SECONDS = 0.2e-3
"""Heartbeats and averages are not looked at more often."""

AVERAGING_SECONDS = 0.5e-3
"""Longest sleep while an average is under way."""

_ABANDONED: list["CommunicationLoop"] = []
"""Loops that left operations pending: MPI may read and write their buffers until it is
finalised, so these must live as long."""


class CommunicationLoop:
    """Everything that this rank does with others, one step at a time.

    Args:
        machine: the pairing protocol.
        wire: its messages.
        demand: when exchanges are due.
        exchanger: runs one.
        pulse: the heartbeat and the constants that follow from it.
        averaging: averages of the model in the middle of a run.
        ledger: shared with the compute loop.
        tally: what happened, for statistics and metrics.
        clock: where time comes from.
        deadline_seconds: how long an answer may take at least; see `progress.limits`.
        hot_seconds: how long after a question its answer is looked for without sleep.
        cutter: takes this rank's part of a checkpoint between exchanges, or None.
    """

    def __init__(
        self,
        *,
        machine: Machine,
        wire: Wire,
        demand: Demand,
        exchanger: Exchanger,
        pulse: Pulse,
        averaging: Averaging | Collecting,
        ledger: Ledger,
        tally: Tally,
        clock: Clock,
        deadline_seconds: float,
        hot_seconds: float,
        cutter: Cutter | None = None,
    ) -> None:
        self.machine = machine
        self._events = 0
        self.ended = False
        self.clean = True
        """Whether no MPI operation was left pending."""
        self._wire = wire
        self._demand = demand
        self._exchanger = exchanger
        self._pulse = pulse
        self._averaging = averaging
        self._ledger = ledger
        self._tally = tally
        self._clock = clock
        self.limits = Limits(deadline_seconds)
        """How long anything may take."""
        self._hot_seconds = hot_seconds
        self._cutter = cutter
        self._ask_again_seconds = clock.now()
        self._offered: dict[int, float] = {}
        self._heard: dict[int, float] = {}
        self._promised: dict[int, int] = {}
        """Parts of checkpoints that either end has promised to have taken, by peer."""
        self._look_seconds = self._began_seconds = clock.now()
        self._teller = Teller(wire, ledger, pulse, cutter)
        self._failed_peer: RemoteError | None = None
        self._called_off = False
        """Whether the peer has called off the exchange at hand."""
        self.waiting = Waiting(self, exchanger, ledger, clock)
        """What this rank waits for."""
        self.watchdog = Watchdog(
            pulse.rank,
            pulse.size,
            self.limits,
            clock,
            lambda now: self.waiting.report(pulse.rank, now),
            self._teller.tell_waits,
        )
        self._steps = self._run()

    @property
    def activity(self) -> int:
        """Grows whenever something happened; a driver resets its back-off on it."""
        return self._events + self._exchanger.landed

    def seconds_to_next(self) -> float:
        """A bound on how long nothing will be due by itself."""
        if self._averaging.pending:
            return AVERAGING_SECONDS
        if self.machine.matched is not None or self.machine.asking is not None:
            return ANSWER_SECONDS
        if self._demand.due() and self.machine.can_start:
            return max(0.0, self._ask_again_seconds - self._clock.now())
        return self._demand.seconds_to_next()

    def advance(self) -> Pace:
        """Answer messages, tell news, take one step of the work at hand.

        Raises:
            AcidError: a peer failed, or a wait took too long.
        """
        if self.ended:
            return Pace.POLL
        self._serve()
        try:
            return next(self._steps)
        except StopIteration:
            self.ended = True
            return Pace.POLL

    def abandon(self, error: BaseException) -> None:
        """This loop cannot go on: tell everyone, and leave what is pending."""
        self.ended, self.clean = True, False
        _ABANDONED.append(self)
        self._ledger.fail(error, FAILED | BROKEN)
        try:
            self._teller.tell_failure()
            self._exchanger.abandon()
            self._wire.close()
        except (AcidError, MPIError):
            pass  # MPI itself is what failed; the first error is the one to show

    # The work at hand: reads top to bottom.

    def _run(self) -> Steps[None]:
        while (yield from self._match()):
            yield from self._exchange()
        yield from self._averaging.finish()
        yield from self._drain()

    def _match(self) -> Steps[bool]:
        """Wait for a peer; False once all ranks have ended."""
        machine, began = self.machine, self._clock.now()
        if machine.asking is not None:
            self._listen()  # asked when the last exchange ended: who else did, has by now
        while machine.matched is None:
            if self._pulse.all_done:
                return False
            if machine.asking is None:
                self._cut()
                self._start()
                yield Pace.POLL if machine.asking is None else Pace.HOT
            else:
                yield self._wait_for_answer(machine.asking)
        if machine.started:
            self._demand.begun()
        self._tally.matched(machine.matched, self._clock.now() - began)
        return True

    def _wait_for_answer(self, peer: int) -> Pace:
        """It comes soon or late: hot for a short while after the question."""
        waited = self.waiting.answer_seconds
        if waited < self._hot_seconds:
            return Pace.HOT
        if waited > self.limits.deadline_seconds:
            raise PeerFailed(peer, "the answer to a request")
        if self.machine.can_set_aside and waited > self.limits.patience_seconds:
            self._send(self.machine.set_aside())
            self._tally.set_aside += 1
        return Pace.POLL

    def _start(self) -> None:
        """Ask a neighbour if an exchange is due and nothing speaks against it."""
        quiet = self._ledger.stopped or self._ledger.retired
        if quiet and not self.machine.retired:
            self._send(self.machine.retire())
        if quiet or not self._demand.due() or not self.machine.can_start:
            return
        now = self._clock.now()
        if now >= self._ask_again_seconds:
            self._send(self.machine.start())
            self.waiting.asked_seconds = now

    def _exchange(self) -> Steps[None]:
        """All of it, unless the peer calls it off before its first chunk."""
        for pace in self._begun():
            yield pace
            if self._called_off:
                return

    def _begun(self) -> Steps[None]:
        """The steps of an exchange with the peer that the machine has matched."""
        peer = self.machine.matched
        assert peer is not None
        if self._cutter is not None:
            self._cutter.follow(self._promised.pop(peer, 0))
        terms = Terms(peer, 0.5, min(self._offered[peer], self._heard[peer]))
        self._began_seconds = self._clock.now()
        self._called_off = False
        return self._exchanger.exchange(terms, self._arrived)

    def _promise(self, peer: int, taken: int) -> None:
        if taken > self._promised.get(peer, 0):
            self._promised[peer] = taken

    def _cut(self) -> None:
        """Between two exchanges: take this rank's part of a checkpoint if one is due."""
        if self._cutter is not None:
            self._cutter.poll()

    def _arrived(self) -> None:
        """The peer has what it needs, and so has this rank: be free, and ask again.

        The last chunk is applied after this, before anything else can begin.
        """
        machine, peer = self.machine, self.machine.matched
        assert peer is not None
        self._events += 1
        if machine.started:
            self._demand.served()
        seconds = self._clock.now() - self._began_seconds
        self._tally.exchanged(peer, self._exchanger.bytes_each_way, seconds)
        self.limits.exchanges.add(seconds)
        self.watchdog.heard(peer, COMPLETED)
        self._send(machine.finish())
        self._be_patient()
        self._ledger.set_exchanges(self._tally.exchanges)
        self._start()

    def _drain(self) -> Steps[None]:
        """Receive every control message that is still on its way, then close."""
        sent = np.array(self._wire.sent_to, np.int64)
        expected = np.zeros_like(sent)
        request = self._pulse.sum_into(sent, expected)
        seconds = self.limits.deadline_seconds
        deadline = Deadline(seconds, self._clock, "the end of all ranks")
        mine = self._pulse.rank
        while not (
            request.Test()
            and self._wire.received >= expected[mine]
            and self._wire.quiet
            and self._exchanger.quiet
        ):
            deadline.check()
            yield Pace.POLL
        self._wire.close()

    # What goes on whatever is at hand.

    def _listen(self) -> bool:
        """Take what has come up to a message that matters at once; whether one has."""
        while (message := self._wire.receive()) is not None:
            self.watchdog.heard(message.source, message.kind)
            self._hear(message)
            if self._failed_peer is not None:
                raise self._failed_peer
            if message.kind not in UNHURRIED:
                self._events += 1
                return True
        return False

    def _serve(self) -> None:
        self._listen()
        # Once all have ended, everyone knows what matters and counts its messages.
        if self._teller.has_news and not self._pulse.all_done:
            self._teller.tell_flags(self.machine.neighbours)
        now = self._clock.now()
        if now >= self._look_seconds:
            self._look_seconds = now + PULSE_SECONDS
            self._look_at_sums(now)

    def _look_at_sums(self, now: float) -> None:
        """What all ranks add up together; it is slow in any case."""
        if self._pulse.poll(idle=self._idle()):
            self._events += 1
            self.watchdog.heard_all(now)
            self.limits.rounds.add(self.waiting.round_over(now))
            self._exchanger.deadline_seconds = self.limits.deadline_seconds
            self._pulse.heartbeat.allow(self.limits.round_seconds)
        self._averaging.poll()
        if not self._pulse.all_done:
            self.watchdog.poll(now, self._pulse.heartbeat_age)

    def _idle(self) -> bool:
        """Whether this rank's compute loop has left and nothing is at hand."""
        return self._ledger.retired and self.machine.settled

    def _hear(self, message: Message) -> None:
        source, kind, notice, _, _ = message
        self._ledger.learn(source, notice.gradients)
        new = self._ledger.raise_flags(notice.flags) if notice.flags else 0
        if kind not in APART:
            self._hear_pairing(source, kind, notice)
        elif kind == FAIL:
            self._hear_failure(message)
        elif kind == NEWS:
            self.watchdog.hear(source, message.text)
        elif kind == CANCEL:
            self._hear_cancel(source)
        elif kind == DROPPED:
            self._hear_dropped(source, message.load)
        if new & BROKEN and kind != FAIL:
            self._failed_peer = RemoteError(source, "its communication stopped")

    def _hear_failure(self, message: Message) -> None:
        error = RemoteError(message.source, message.text)
        self._ledger.fail(error, message.notice.flags)
        if message.notice.flags & BROKEN:
            self._failed_peer = error

    def _hear_pairing(self, source: int, kind: int, notice: Notice) -> None:
        machine = self.machine
        if kind in OPENING:
            self._heard[source] = notice.alpha_tilde
            if notice.taken:
                self._promise(source, notice.taken)
        if kind in (ACCEPT, BUSY) and source == machine.asking:
            self.limits.answers.add(self.waiting.answer_seconds)
        if source in machine.aside and self._is_outdated(source):
            machine.outdate(source)
        self._send(machine.receive(source, kind))
        if kind == BUSY:
            self._be_patient()

    def _is_outdated(self, peer: int) -> bool:
        """Whether a part was taken since `peer` was asked, of which neither end spoke."""
        taken = 0 if self._cutter is None else self._cutter.taken
        return taken > self._promised.get(peer, 0)

    def _hear_cancel(self, source: int) -> None:
        """The peer had gone on: take back what this rank has begun with it."""
        for peer, kind in self.machine.receive(source, CANCEL):
            self._called_off = True
            self._tally.called_off += 1
            count = self._exchanger.withdraw()
            self._wire.send(
                peer, kind, self._teller.notice(), "", count.to_bytes(4, "little")
            )

    def _hear_dropped(self, source: int, load: bytes) -> None:
        """The peer has taken back an exchange, but for what was on its way."""
        self.machine.receive(source, DROPPED)
        self._exchanger.drain(source, int.from_bytes(load, "little"))

    def _be_patient(self) -> None:
        """Leave others time to ask first, as the protocol thinks best."""
        patience = self.machine.patience()
        if patience:
            pause = patience * self._tally.typical_exchange_seconds
            self._ask_again_seconds = self._clock.now() + pause

    def _send(self, messages: Sends) -> None:
        if not messages:
            return
        notice = self._teller.notice()
        for peer, kind in messages:
            if kind in OPENING:
                self._offered[peer] = notice.alpha_tilde
                if notice.taken:
                    self._promise(peer, notice.taken)
            self._wire.send(peer, kind, notice)
