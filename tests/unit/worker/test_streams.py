"""Two ranks on stand-ins for GPUs: whatever their queues do, no torn value is used.

The same schedules with one wait, or one question, left out end with torn values.
"""

import random
from collections import defaultdict, deque

import numpy as np
import pytest
from support.streams import Gpu, Messages, QueuedKernels, Witness, World

from acidmpi.arrays.device_site import DeviceSite
from acidmpi.clocks import ManualClock
from acidmpi.kernels import load
from acidmpi.kernels.hyper import SGD
from acidmpi.transport.device import DeviceTransport
from acidmpi.transport.staged import StagedTransport
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.state import RankState, Update
from acidmpi.worker.units import LogicalUnits

TRANSPORTS = {"device": DeviceTransport, "staged": StagedTransport}
NUMBERS, CHUNK_BYTES, DEPTH = 40, 64, 2
STEPS = 12
"""Most gradients of a rank: a caller that is always ahead would stop all exchanges."""
SCHEDULES = 30
MORE_SCHEDULES = 400
"""A fault shows itself in one of 60 at least, in most cases in every third."""


class Rank:
    """One rank, its device, and what it has queued."""

    def __init__(self, world, messages, expected, rank, kind, dtype, accelerated):
        self.rank = rank
        self.gpu = Gpu(world, f"gpu{rank}")
        numbers = np.random.default_rng(rank).standard_normal(NUMBERS).astype(dtype)
        self.x = self.gpu.array(numbers)
        self.gradient = self.gpu.array(np.zeros(NUMBERS, dtype))
        self.momentum = self.gpu.array(np.zeros(NUMBERS, dtype))
        self.units = LogicalUnits()
        self.kernels = QueuedKernels(load("reference"), self.gpu)
        self.site = DeviceSite(self.gpu)
        self.state = RankState(
            [self.x], self.kernels, self.units, accelerated, site=self.site
        )
        self.state.set_eta(1.0)
        transport = TRANSPORTS[kind](messages.end(rank), self.gpu, self.site.stream)
        self.exchanger = Exchanger(
            self.state,
            Witness(transport, rank, expected),
            CHUNK_BYTES,
            ManualClock(),
            10.0,
            0.0,
            depth=DEPTH,
        )
        self.steps = 0

    def exchange(self):
        return self.exchanger.exchange(Terms(1 - self.rank, 0.5, 1.3))

    def step(self):
        """A backward pass, and the gradient event after it."""
        self.steps += 1
        values = np.full(NUMBERS, 0.01 * self.steps, self.x.dtype)
        self.gpu.write(self.gradient, values, self.gpu.main)
        hyper = SGD(lr=0.1, momentum=0.5, first=self.steps == 1)
        update = Update(0, 0, NUMBERS, self.gradient, (self.momentum,), hyper)
        self.units.move_to(self.units.now() + 0.05)
        self.state.apply_gradient([update])


def run(seed, kind, left_out=None, exchanges=4, dtype="float64", accelerated=True):
    """One schedule; the ranks when all is over."""
    world, chance = World(seed), random.Random(seed)
    messages, expected = Messages(world), defaultdict(deque)
    ranks = [
        Rank(world, messages, expected, r, kind, dtype, accelerated) for r in (0, 1)
    ]
    for one in ranks:
        one.gpu.left_out = left_out
    for _ in range(exchanges):
        going = {one: one.exchange() for one in ranks}
        while going:
            one = chance.choice(ranks)
            if one.steps < STEPS and chance.random() < 0.4:
                one.step()
            elif one in going and next(going[one], None) is None:
                del going[one]
    return world, ranks


def torn(world, ranks):
    """Whether anything differs from what it is without queues."""
    copies = []
    for one in ranks:
        one.site.settle()
        copy = one.gpu.empty(NUMBERS, one.x.dtype)
        one.gpu.copy(copy, one.x, one.gpu.main)  # what the caller sees afterwards
        copies.append(copy)
    world.finish()
    arrays = [*copies, *(a for one in ranks for a in (one.x, one.momentum))]
    arrays += [t for one in ranks for t in one.state.x_tilde if t is not None]
    drift = sum(one.exchanger.drift for one in ranks)  # waits for nothing any more
    return abs(drift) > 1e-3 or any(
        a.real.tobytes() != a.twin.tobytes() for a in arrays
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("kind", TRANSPORTS)
def test_no_torn_value_is_sent_or_applied(kind, accelerated, dtype):
    for seed in range(SCHEDULES):
        found = run(seed, kind, dtype=dtype, accelerated=accelerated)
        assert not torn(*found), seed


COMMON = [("caller", "communication"), ("communication", "caller")]
FAULTS = [
    *(("device", edge) for edge in [*COMMON, ("host", "communication")]),
    *(("staged", edge) for edge in COMMON),
    ("staged", ("out", "communication")),
    ("staged", ("host", "out")),
    ("staged", ("communication", "in")),
    ("staged", ("host", "communication")),
]


@pytest.mark.parametrize(("kind", "edge"), FAULTS)
def test_with_any_event_left_out_values_are_torn(kind, edge):
    assert any(torn(*run(seed, kind, edge)) for seed in range(MORE_SCHEDULES))


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_there_is_no_other_event(kind):
    """Each one there is, is one of those that are left out above."""
    used = set()
    for seed in range(5):
        _, ranks = run(seed, kind)
        used |= {edge for one in ranks for edge in one.gpu.used}
    assert used == {edge for which, edge in FAULTS if which == kind}
