"""One step of one averager: its buckets, each somewhere between compression and mean.

Whatever the order in which gradients become final, bucket b is resumed for the s-th time
only after bucket b−1 was. Each resumption but the last posts one message, on the
communicator of its stage, so that all ranks post the same messages in the same order on
each communicator. That is what MPI asks for, and it makes a compressor's calls come in
the same order everywhere.
"""

import time
from collections.abc import Sequence

from acidmpi.compression.protocol import Message, Reduction, Work
from acidmpi.errors import ConfigError
from acidmpi.parallel.buckets import Bucket
from acidmpi.parallel.handover import Handover
from acidmpi.parallel.lanes import Lane
from acidmpi.parallel.messages import Pending, Posting


class StepRun:
    """The buckets of one step.

    Args:
        number: of the step.
        buckets: of its phase.
        reduction: the compressor at work.
        channels: one for each of its stages.
        handover: where gradients come from.
        lane: where they live.
    """

    def __init__(
        self,
        number: int,
        buckets: Sequence[Bucket],
        reduction: Reduction,
        channels: Sequence[Posting],
        handover: Handover,
        lane: Lane,
    ) -> None:
        self.number = number
        self.buckets = buckets
        self.compressing_seconds = 0.0
        self._reduction = reduction
        self._channels = channels
        self._handover = handover
        self._lane = lane
        self._works: list[Work | None] = [None] * len(buckets)
        self._pending: list[Pending | None] = [None] * len(buckets)
        self._turn = [0] * (len(channels) + 1)
        """By number of resumption: the bucket that is next."""

    @property
    def over(self) -> bool:
        """Whether every bucket holds its mean."""
        return self._turn[-1] == len(self.buckets)

    @property
    def waiting(self) -> str | None:
        """What is under way, in words, or None when nothing is."""
        for stage in range(len(self._channels), 0, -1):
            bucket = self._turn[stage]
            if bucket < self._turn[stage - 1]:
                count = f"bucket {bucket} of {len(self.buckets)}"
                return f"message {stage} of {count} in step {self.number}"
        return None

    def advance(self) -> bool:
        """Resume one bucket if any can be; tell whether one was."""
        for stage in range(len(self._turn)):
            bucket = self._turn[stage]
            if bucket < len(self.buckets) and self._can_resume(bucket, stage):
                self._turn[stage] += 1
                self._resume(bucket, stage)
                return True
        return False

    def _can_resume(self, bucket: int, stage: int) -> bool:
        if stage == 0:
            return self._handover.complete(bucket)
        if bucket >= self._turn[stage - 1]:
            return False
        pending = self._pending[bucket]
        return pending is None or pending.test()

    def _resume(self, bucket: int, stage: int) -> None:
        began = time.perf_counter()
        marks = self._handover.marks(self.buckets[bucket].indices) if stage == 0 else ()
        with self._lane.working(marks):
            message = self._next(bucket, stage)
        self.compressing_seconds += time.perf_counter() - began
        self._pending[bucket] = None
        if message is None:
            self._works[bucket] = None
            return
        if stage == len(self._channels):
            raise ConfigError(
                f"a compressor with {stage} stages may send as many messages in a "
                f"bucket, got another {type(message).__name__}; raise its `stages`"
            )
        self._pending[bucket] = self._channels[stage].post(message)

    def _next(self, bucket: int, stage: int) -> Message | None:
        """What the work of a bucket sends next; None when it has ended, now or before."""
        if stage == 0:
            indices = self.buckets[bucket].indices
            gradients = self._handover.take(indices)
            work = self._reduction.reduce(indices, gradients, self.number)
            self._works[bucket] = work
            return next(work, None)
        running, pending = self._works[bucket], self._pending[bucket]
        if running is None or pending is None:
            return None
        try:
            return running.send(pending.reply)
        except StopIteration:
            return None
