"""Gradients in the memory of a device: a stand-in whose work is done late, and another
whose arrays refuse what CuPy's refuse.
"""

import numpy as np
import pytest
from mpi4py import MPI
from support import cupy_like
from support.apart import Apart
from support.streams import Gpu, World

from acidmpi.compression.protocol import Mean, Spec
from acidmpi.compression.registry import make, names
from acidmpi.errors import ConfigError, DeadlineExceeded, RemoteError
from acidmpi.parallel.averager import Averager

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
SHAPES = ((6, 9), (5,), (12, 40), (1,), (33, 3))
LOW_RANK = ("powersgd", "acpsgd")

pytestmark = [pytest.mark.mpi, pytest.mark.limit(60)]
several = pytest.mark.skipif(SIZE == 1, reason="one rank has nobody to differ from")


def gradients_of(specs, step):
    draw = np.random.default_rng([RANK, step])
    return [
        draw.standard_normal(spec.shape).astype(spec.dtype).reshape(-1)
        for spec in specs
    ]


def step_of(averager, gradients):
    for index in reversed(range(len(gradients))):
        averager.ready(index, gradients[index])
    averager.finish()


@pytest.mark.parametrize(
    ("name", "progress"),
    [*((name, "thread") for name in names()), ("none", "inline"), ("acpsgd", "inline")],
)
def test_means_are_those_of_host_memory(name, progress):
    """To the last bit, but for products of matrices, which CuPy makes in another way."""
    specs = [Spec(shape, np.dtype(np.float32)) for shape in SHAPES]
    device = Apart(patience=RANK + 1)
    options = {"bucket_bytes": 600, "deadline_seconds": 20.0, "progress": progress}
    with (
        Averager(specs, make(name), COMM, **options) as here,
        Averager(specs, make(name), COMM, **options, accelerator=device) as there,
    ):
        for step in range(3):
            mine = gradients_of(specs, step)
            theirs = [cupy_like.asarray(gradient) for gradient in mine]
            step_of(here, mine)
            step_of(there, theirs)
            for left, right in zip(mine, theirs, strict=True):
                if name in LOW_RANK:
                    np.testing.assert_allclose(left, right.get(), atol=1e-4)
                else:
                    np.testing.assert_array_equal(left, right.get())
        left, right = here.statistics(), there.statistics()
        assert (left.messages, left.bytes_sent) == (right.messages, right.bytes_sent)
    assert device.copied_bytes


def test_arrays_are_broadcast_and_averaged_from_wherever_they_are():
    specs = [Spec((3,), np.dtype(np.float64))]
    with Averager(specs, make("none"), COMM, accelerator=Apart()) as averager:
        for kind in (cupy_like.asarray, np.array):
            arrays = [kind(np.full(5, RANK, dtype)) for dtype in ("f8", "f4", "f2")]
            averager.average(arrays)
            assert all(float(array[4]) == (SIZE - 1) / 2 for array in arrays)
            mine = kind(np.full(3, RANK + 7.0))
            averager.broadcast([mine])
            assert float(mine[0]) == 7.0


class InPlace:
    """Averages each parameter where it is."""

    name, phases, stages = "inplace", 1, 1

    def __repr__(self):
        return "InPlace()"

    def start(self, specs, place):
        return self

    def phase(self, step):
        return 0

    def payload_bytes(self, index, phase):
        return 1

    def reduce(self, indices, gradients, step):
        for gradient in gradients:
            yield Mean(gradient)


class Asks(InPlace):
    """Tells in whose stream its state is copied."""

    def __init__(self, gpu):
        self.gpu, self.loaded = gpu, False

    def state(self):
        return {"ordered": self.gpu.current is self.gpu.caller()}

    def load(self, states):
        self.loaded = self.gpu.current is self.gpu.caller()


class SideStream(Gpu):
    """The caller computes in another stream than CuPy's own, as torch may let it."""

    @property
    def current(self):
        return getattr(self.local, "stream", None)


def test_a_state_is_copied_in_the_callers_stream():
    """That one has been made to wait for the loop's; CuPy's own waits for neither."""
    gpu = SideStream(World(eager=True))
    specs, asks = [Spec((3,), np.dtype(np.float64))], Asks(gpu)
    with Averager(specs, asks, COMM, accelerator=gpu, progress="inline") as averager:
        states = averager.gather_state()
        assert all(state["reduction"]["ordered"] for state in states)
        averager.load_state_dict(states)
        assert asks.loaded


def late_run(seed, left_out=None, eager=False):
    """Two steps on a device that works late; whether its results are the right ones."""
    gpu = Gpu(World(seed * SIZE + RANK, eager))
    gpu.left_out = left_out
    specs = [Spec((size,), np.dtype(np.float64)) for size in (4, 200_000)]
    right = True
    options = {"bucket_bytes": 0, "progress": "inline", "deadline_seconds": 20.0}
    with Averager(specs, InPlace(), COMM, accelerator=gpu, **options) as averager:
        gradients = [gpu.array(np.zeros(spec.shape)) for spec in specs]
        for step in range(2):
            for index in (1, 0):
                value = np.full(specs[index].shape, RANK + 10.0 * step + index)
                gpu.write(gradients[index], value, gpu.caller())
                averager.ready(index, gradients[index])
            averager.finish()
            for index, gradient in enumerate(gradients):
                seen = np.zeros(gradient.size)
                gpu.copy(seen, gradient, gpu.caller())
                gpu.finish()
                mean = (SIZE - 1) / 2 + 10.0 * step + index
                right &= bool((seen == mean).all())
    return right, gpu.used


WAITS = [
    ("communication", "caller"),
    ("host", "communication"),
    ("caller", "communication"),
]


def test_nothing_is_used_before_it_has_come():
    there = set()
    for seed in range(20):
        right, used = late_run(seed)
        assert right
        there |= used
    assert there == set(WAITS), "each wait below is there, and no other"


@several
@pytest.mark.parametrize("left_out", WAITS)
def test_a_wait_that_is_left_out_is_noticed(left_out):
    for seed in range(60):
        if COMM.allreduce(not late_run(seed, left_out)[0]):
            return
    raise AssertionError("nobody has seen a wrong mean")


@several
def test_a_device_that_never_finishes_ends_at_the_deadline():
    specs = [Spec((3,), np.dtype(np.float64))]
    device = Apart(patience=10**9 if RANK == 0 else 0)
    averager = Averager(
        specs, make("none"), COMM, accelerator=device, deadline_seconds=1.0
    )
    with pytest.raises((DeadlineExceeded, RemoteError)):
        step_of(averager, [cupy_like.asarray(np.zeros(3))])
    averager.close(RuntimeError("the end"))


def test_messages_of_a_device_are_checked_too():
    specs = [Spec((3,), np.dtype(np.float64))]
    compressor = InPlace()
    compressor.reduce = lambda *_: iter([Mean(cupy_like.asarray(np.zeros((2, 2))))])
    averager = Averager(specs, compressor, COMM, accelerator=Apart(), progress="inline")
    with pytest.raises((ConfigError, RemoteError), match="dimension"):
        step_of(averager, [cupy_like.asarray(np.zeros(3))])
    averager.close(ConfigError("the end"))
