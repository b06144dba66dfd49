"""The communication loop of one averager: step after step, as gradients come.

Owned by whoever is at the `helm`; gradients come through the `Handover`. `advance` never
blocks and never sleeps. While the caller computes, looks are rare, since they cost
it time; while it waits for the mean they follow one another, for as long as anything
moves.

A failure goes to every rank: the one that fails writes to all on a communicator of its
own, which every loop listens to, whatever else it waits for.
"""

from collections.abc import Sequence

from acidmpi.clocks import Clock
from acidmpi.compression.protocol import Reduction
from acidmpi.errors import AcidError, ConfigError, DeadlineExceeded, RemoteError
from acidmpi.mpi.collectives import describe
from acidmpi.mpi.reductions import Comm, MPIError, Request
from acidmpi.pairing.wire import FAIL, Notice, Wire
from acidmpi.parallel.buckets import Bucket
from acidmpi.parallel.handover import Handover
from acidmpi.parallel.lanes import Lane
from acidmpi.parallel.messages import Posting
from acidmpi.parallel.step import StepRun
from acidmpi.progress import Deadline, Pace, until

BUSY_SECONDS = 1e-3
"""Longest sleep while messages are under way and the caller computes."""

WAITING_SECONDS = 0.2e-3
"""Longest sleep while messages are under way and the caller waits for them."""

HOT_SECONDS = 1e-3
"""How long a waiting caller's loop looks without sleep after something has moved."""

FAREWELL_SECONDS = 1.0
"""How long a failing rank waits for MPI to take its last words."""

_ABANDONED: list["AveragingLoop"] = []
"""Loops that left operations pending: MPI may read and write their buffers until it is
finalised, so these must live as long."""


class AveragingLoop:
    """Everything that one averager does with other ranks while gradients come.

    Args:
        reduction: the compressor at work.
        plans: buckets, by phase.
        channels: one for each stage of the compressor.
        wire: carries failures.
        closing: a communicator for the end.
        handover: shared with the caller.
        lane: where gradients live.
        clock: where time comes from.
        deadline_seconds: how long nothing may move while others are waited for.
        hot_seconds: see `HOT_SECONDS`; 0 where ranks share cores.
    """

    def __init__(
        self,
        *,
        reduction: Reduction,
        plans: Sequence[Sequence[Bucket]],
        channels: Sequence[Posting],
        wire: Wire,
        closing: Comm,
        handover: Handover,
        lane: Lane,
        clock: Clock,
        deadline_seconds: float,
        hot_seconds: float,
    ) -> None:
        self.ended = False
        self.clean = True
        """Whether no MPI operation was left pending."""
        self.compressing_seconds = 0.0
        self._reduction = reduction
        self._plans = plans
        self._channels = channels
        self._wire = wire
        self._closing_comm = closing
        self._handover = handover
        self._lane = lane
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._hot_seconds = hot_seconds
        self._events = 0
        self._seen = 0
        self._moved_seconds = clock.now()
        self._closing: Request | None = None
        self._run = self._new_run(0)

    @property
    def activity(self) -> int:
        """Grows whenever something happened; a driver resets its back-off on it."""
        return self._events + sum(channel.moved for channel in self._channels)

    @property
    def buckets(self) -> int:
        """Buckets of the step at hand."""
        return len(self._run.buckets)

    def seconds_to_next(self) -> float:
        """A bound on how long nothing will be due by itself."""
        if self._closing is None and self._run.waiting is None:
            return float("inf")
        return WAITING_SECONDS if self._handover.awaited else BUSY_SECONDS

    def restart(self, step: int) -> None:
        """Begin step number `step`; when no bucket is under way."""
        self.compressing_seconds += self._run.compressing_seconds
        self._run = self._new_run(step)
        self._handover.begin(step, self._run.buckets)

    def advance(self) -> Pace:
        """Hear of failures, move one bucket, or the end.

        Raises:
            AcidError: another rank has failed, or nothing moved for too long.
            BaseException: what the compressor raised, or the caller failed with.
        """
        if self.ended:
            return Pace.POLL
        self._hear()
        if self._run.advance():
            self._events += 1
            if self._run.over:
                self._handover.finish()
        if self._handover.ended:
            self._close()
        return self._pace()

    def abandon(self, error: BaseException) -> None:
        """This loop cannot go on: tell everyone, and leave what is pending.

        The caller may have failed while the loop came to grief over that: the first
        failure is the one to tell.
        """
        self.ended, self.clean = True, False
        _ABANDONED.append(self)
        first = self._handover.fail(error)
        try:
            if not isinstance(first, RemoteError):
                self._tell(describe(first))
            self._wire.close()
        except (AcidError, MPIError):
            pass  # MPI itself is what failed; the first error is the one to show

    def _hear(self) -> None:
        self._handover.check()
        message = self._wire.receive()
        if message is not None:
            raise RemoteError(message.source, message.text)

    def _tell(self, text: str) -> None:
        comm = self._closing_comm
        for peer in range(comm.size):
            if peer != comm.rank:
                self._wire.send(peer, FAIL, Notice(), text)
        deadline = Deadline(FAREWELL_SECONDS, self._clock, "the last words of a rank")
        for _ in until(lambda: self._wire.quiet, deadline, Pace.HOT):
            pass

    def _close(self) -> None:
        """Leave together, so that nobody frees what another still needs."""
        if self._handover.count:
            raise ConfigError(
                "close() must come between two steps, got one in the middle of step "
                f"{self._run.number}; finish it by step() or synchronize() first"
            )
        if self._closing is None:
            self._closing = self._closing_comm.Ibarrier()
        elif self._closing.Test():
            self._wire.close()
            self.ended = True

    def _pace(self) -> Pace:
        now, activity = self._clock.now(), self.activity
        what = "close()" if self._closing is not None else self._run.waiting
        if activity != self._seen or what is None:
            self._seen, self._moved_seconds = activity, now
            return Pace.IDLE if what is None else Pace.POLL
        still = now - self._moved_seconds
        if still > self._deadline_seconds:
            raise DeadlineExceeded(
                f"no progress for {self._deadline_seconds:g} s in {what}; a rank has "
                "died, stands still or does not take part (raise `deadline_seconds` if "
                "ranks are that slow)"
            )
        hot = self._handover.awaited and still < self._hot_seconds
        return Pace.HOT if hot else Pace.POLL

    def _new_run(self, step: int) -> StepRun:
        buckets = self._plans[self._reduction.phase(step)]
        return StepRun(
            step, buckets, self._reduction, self._channels, self._handover, self._lane
        )
