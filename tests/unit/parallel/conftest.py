"""A compressor of two stages, and channels whose messages a test lets arrive."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from acidmpi.compression.protocol import Gather, Spec, Sum
from acidmpi.parallel.buckets import Bucket
from acidmpi.parallel.handover import Handover

PARAMETERS = 6


class TwoStages:
    """Sums, then gathers; parameters of odd buckets end after the sum."""

    phases, stages = 2, 2

    def __init__(self):
        self.calls = []
        self.short = ()

    def phase(self, step):
        return step % 2

    def reduce(self, indices, gradients, step):
        self.calls.append(("encode", indices))
        total = yield Sum(np.concatenate(gradients))
        self.calls.append(("between", indices))
        if indices in self.short:
            return
        rows = yield Gather(total[:1].copy())
        self.calls.append(("decode", indices))
        for gradient in gradients:
            gradient[:] = rows[0]


class HeldPending:
    """Arrives when the test says so."""

    def __init__(self, message):
        array = message.array
        self.reply = array[None] if isinstance(message, Gather) else array
        self.arrived = False

    def test(self):
        return self.arrived


@dataclass
class HeldChannel:
    """Keeps what is posted."""

    moved: int = 0
    posted: list = field(default_factory=list)

    def post(self, message):
        self.posted.append((message, HeldPending(message)))
        return self.posted[-1][1]

    def deliver(self, number):
        self.posted[number][1].arrived = True


@dataclass
class Bench:
    """One averager's inside, without MPI."""

    handover: Handover
    buckets: tuple
    reduction: TwoStages
    channels: list

    def give(self, *indices):
        """Make gradients final whose value is their index plus one."""
        for index in indices:
            self.handover.put(index, np.full(2, index + 1.0))

    def posted(self, stage):
        """First numbers of the messages posted in a stage, in order."""
        return [message.array[0] for message, _ in self.channels[stage].posted]


@pytest.fixture
def bench():
    specs = [Spec((2,), np.dtype("float64"))] * PARAMETERS
    buckets = (Bucket((5, 4)), Bucket((3, 2)), Bucket((1, 0)))
    channels = [HeldChannel(), HeldChannel()]
    return Bench(Handover(specs, buckets), buckets, TwoStages(), channels)
