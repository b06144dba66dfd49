"""Gradients that are not finite on a device: left out there, and learnt without a wait."""

import numpy as np
import pytest
from support.guarded import GuardedHost
from support.streams import Gpu, QueuedKernels, World

from acidmpi.arrays.device_site import DeviceSite
from acidmpi.errors import DeadlineExceeded
from acidmpi.kernels import load
from acidmpi.kernels.hyper import SGD
from acidmpi.worker import verdicts as module
from acidmpi.worker.state import RankState, Update
from acidmpi.worker.units import LogicalUnits
from acidmpi.worker.verdicts import LATE, Span, Verdict, Verdicts

NUMBERS = 10
BAD = {3: 2, 4: 9, 11: 0}
"""Steps whose gradient is not finite, and where it is not."""
SCHEDULES = 60


class Heedless(QueuedKernels):
    """A planted fault: the word is not looked at."""

    def unless(self, word):
        return self


class Slow(Gpu):
    """Counts those who wait until it has done everything."""

    waits = 0

    def finish(self):
        self.waits += 1
        super().finish()


class Rank:
    """Steps of one rank, as a worker makes them."""

    def __init__(self, world, kernels=QueuedKernels, gpu=Gpu):
        self.world, self.gpu = world, gpu(world, "gpu")
        self.x = self.gpu.array(np.zeros(NUMBERS, np.float32))
        self.gradient = self.gpu.array(np.zeros(NUMBERS, np.float32))
        self.momentum = self.gpu.array(np.zeros(NUMBERS, np.float32))
        queued = kernels(load("reference"), self.gpu)
        self.units, self.site = LogicalUnits(), DeviceSite(self.gpu)
        self.state = RankState([self.x], queued, self.units, True, site=self.site)
        self.state.set_eta(1.0)
        self.verdicts = Verdicts(self.gpu, queued)
        self.heard, self.at = [], []
        self.steps = 0

    def step(self):
        self.steps += 1
        values = np.full(NUMBERS, 1.0, np.float32)
        if self.steps in BAD:
            values[BAD[self.steps] :] = np.nan
        self.gpu.write(self.gradient, values, self.gpu.main)
        self.units.move_to(self.units.now() + 0.05)
        self.listen(self.verdicts.heard())
        hyper = SGD(lr=0.1, momentum=0.5, zero_gradient=True)
        update = Update(0, 0, NUMBERS, self.gradient, (self.momentum,), hyper)
        spans = [Span(self.gradient[:4], 0), Span(self.gradient[4:], 4)]

        def guard(apply):
            self.verdicts.apply(spans, self.steps, apply)

        self.state.apply_gradient([update], guard)

    def listen(self, told):
        self.heard += told
        self.at += [self.steps] * len(told)


def expected(steps):
    """The verdicts, and x by the same steps without those that are left out."""
    x = momentum = 0.0
    for step in range(1, steps + 1):
        if step not in BAD:
            momentum = 0.5 * momentum + 1.0
            x -= 0.1 * momentum
    return [Verdict(k, BAD.get(k)) for k in range(1, steps + 1)], x


def run(seed, kernels=QueuedKernels, left_out=None, steps=15):
    """All the way on one schedule of the device's; whether everything is right."""
    one = Rank(World(seed), kernels)
    one.gpu.left_out = left_out
    for _ in range(steps):
        one.step()
    one.listen(one.verdicts.rest())
    one.world.finish()
    told, x = expected(steps)
    late = [at - verdict.about for at, verdict in zip(one.at, one.heard, strict=True)]
    assert max(late) <= LATE
    right = np.allclose(one.x.real, x, rtol=1e-5) and np.all(one.gradient.real == 0)
    return right and one.heard == told and one.x.real.tobytes() == one.x.twin.tobytes()


def test_what_is_not_finite_is_left_out_and_learnt():
    assert all(run(seed) for seed in range(SCHEDULES))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_word_that_is_not_heeded_spoils_x():
    assert not run(0, Heedless)


def test_a_word_read_before_its_event_tells_something_else():
    found = [run(seed, left_out=("host", "caller")) for seed in range(SCHEDULES)]
    assert not all(found)


@pytest.fixture(name="waits")
def count_of_waits(monkeypatch):
    """How often a verdict was waited for; the device stands still unless that happens."""
    counted = []
    monkeypatch.setattr(World, "churn", lambda self: None)
    monkeypatch.setattr(module.time, "sleep", counted.append)
    return counted


def test_steps_do_not_wait_for_a_device_that_does_nothing_yet(waits):
    one = Rank(World(), gpu=Slow)
    for _ in range(LATE):
        one.step()
    assert not one.heard
    assert not waits
    assert one.gpu.waits == 0


def test_steps_do_not_wait_for_a_device_that_keeps_up(waits):
    one = Rank(World(), gpu=Slow)
    for step in range(3 * LATE):
        one.step()
        assert len(one.heard) == step
        one.world.finish()  # while the next backward pass is under way
    assert not waits
    assert one.gpu.waits == 0


def test_only_too_far_ahead_a_step_waits_and_no_longer_than_needed(waits, monkeypatch):
    one = Rank(World(), gpu=Slow)
    for _ in range(LATE):
        one.step()

    def pass_time(seconds):
        waits.append(seconds)
        one.world.step()

    monkeypatch.setattr(module.time, "sleep", pass_time)
    one.step()
    assert waits
    assert one.heard == expected(1)[0]


def test_a_device_that_hangs_is_told(waits, monkeypatch):
    one = Rank(World(), gpu=Slow)
    one.step()
    monkeypatch.setattr(module, "WORD_SECONDS", 0.0)
    with pytest.raises(DeadlineExceeded, match="a step of the GPU"):
        one.verdicts.rest()


def test_a_word_is_cleared_before_its_first_use_and_after_a_verdict_that_is_bad():
    one = Rank(World(eager=True))
    cleared, clear = [], one.gpu.clear

    def note(array, stream):
        cleared.append(one.steps)
        clear(array, stream)

    one.gpu.clear = note
    for _ in range(4 * LATE):
        one.step()
    assert cleared == [*range(1, LATE + 1), *(LATE + k for k in sorted(BAD))]


def test_the_stand_in_of_host_memory_does_the_same():
    """What the tests of whole workers use in place of the kernels."""
    kernels, word = GuardedHost(load("reference")), np.zeros(1, np.uint64)
    gradient = np.array([1.0, np.inf, np.nan], np.float32)
    kernels.find_nonfinite(gradient, word, 5)
    assert module.position(int(word[0])) == 6
    x, tilde = np.zeros(3, np.float32), np.ones(3, np.float32)
    kernels.unless(word).apply_gradient(x, tilde, gradient, (), 0.25, SGD(0.1))
    assert (x.tolist(), tilde.tolist()) == ([0.25] * 3, [0.75] * 3)
