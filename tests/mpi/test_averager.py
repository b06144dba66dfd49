"""Gradients of real ranks: exact means, in any order and with any delay, or all fail."""

import random
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.compression.dense import Cast, NoCompression
from acidmpi.compression.protocol import AllToAll, Gather, Mean, Spec, Sum
from acidmpi.errors import (
    ConfigError,
    DeadlineExceeded,
    DisagreementError,
    RemoteError,
)
from acidmpi.parallel import loop, messages
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.messages import Channel, Traffic
from acidmpi.parallel.step import StepRun

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
LAST = SIZE - 1
DRIVERS = ["thread", "inline"]
SIZES = (7, 1, 64, 3, 500, 12, 300)

pytestmark = [pytest.mark.mpi, pytest.mark.limit(60)]
several = pytest.mark.skipif(SIZE == 1, reason="one rank has nobody to differ from")


def specs_of(*sizes, dtype="float64"):
    return [Spec((size,), np.dtype(dtype)) for size in sizes]


def open_averager(specs=None, compressor=None, comm=COMM, **options):
    usual = {"deadline_seconds": 20.0, "bucket_bytes": 1000}
    compressor = compressor or NoCompression()
    return Averager(specs or specs_of(*SIZES), compressor, comm, **usual | options)


def gradient_of(rank, spec, step=0, index=0):
    """Small whole numbers: their sums are exact in every order."""
    size = int(np.prod(spec.shape))
    values = (np.arange(size) * (rank + 1) + 3 * index + step) % 17
    return values.astype(spec.dtype)


def mean_of(spec, step=0, index=0):
    total = sum(gradient_of(rank, spec, step, index) for rank in range(SIZE))
    return total / spec.dtype.type(SIZE)


def run_step(averager, specs, step=0, order=None, pause=0.0):
    """Hand everything over in this rank's order; return the means."""
    gradients = [gradient_of(RANK, s, step, i) for i, s in enumerate(specs)]
    for index in order or reversed(range(len(specs))):
        averager.ready(index, gradients[index])
        if pause:
            time.sleep(pause * random.random())
    averager.finish()
    return gradients


def assert_means(gradients, specs, step=0):
    for index, (gradient, spec) in enumerate(zip(gradients, specs, strict=True)):
        assert np.array_equal(gradient, mean_of(spec, step, index)), index


# Means.


@pytest.mark.parametrize(
    ("progress", "dtype", "bucket_bytes"),
    [
        ("thread", "float64", 0),
        ("thread", "float32", 1000),
        ("inline", "float32", 0),
        ("inline", "float64", 1 << 20),
    ],
)
def test_every_rank_gets_the_exact_mean(progress, dtype, bucket_bytes):
    specs = specs_of(*SIZES, dtype=dtype)
    with open_averager(specs, progress=progress, bucket_bytes=bucket_bytes) as averager:
        for step in range(3):
            assert averager.step == step
            assert_means(run_step(averager, specs, step), specs, step)
        assert averager.ready_count == 0


def test_types_travel_side_by_side():
    """Sixteen bits are summed as float32 and rounded once."""
    specs = [
        Spec((size,), np.dtype(dtype))
        for size in (5, 40)
        for dtype in ("float64", "float16", "float32")
    ]
    with open_averager(specs, bucket_bytes=1 << 20) as averager:
        gradients = run_step(averager, specs)
    for index, (gradient, spec) in enumerate(zip(gradients, specs, strict=True)):
        wide = np.dtype("float32") if spec.dtype.itemsize == 2 else spec.dtype
        mean = mean_of(Spec(spec.shape, wide), 0, index)
        assert np.array_equal(gradient, mean.astype(spec.dtype))


@pytest.mark.parametrize("progress", DRIVERS)
def test_any_order_and_any_delay_will_do(progress):
    specs = specs_of(*[20] * 12)
    chance = random.Random(RANK)
    with open_averager(specs, progress=progress, bucket_bytes=500) as averager:
        for step in range(6):
            order = chance.sample(range(len(specs)), len(specs))
            pause = 2e-3 if (step + RANK) % 3 == 0 else 0.0
            gradients = run_step(averager, specs, step, order, pause)
            assert_means(gradients, specs, step)


def test_gradients_come_from_any_thread():
    specs = specs_of(*[20] * 12)
    with open_averager(specs, bucket_bytes=500) as averager:
        gradients = [gradient_of(RANK, s, 0, i) for i, s in enumerate(specs)]

        def hand_over(which):
            for index in range(which, len(specs), 3):
                averager.ready(index, gradients[index])

        threads = [threading.Thread(target=hand_over, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        averager.finish()
        assert_means(gradients, specs)


class ByReadiness(StepRun):
    """A planted fault: buckets are launched in the order in which they are ready."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.expected, self.launched = set(range(len(self.buckets))), set()

    def advance(self):
        ready = {b for b in self.expected if self._handover.complete(b)}
        done = {b for b in self.launched if self._pending[b].test()}
        self.expected -= ready
        self.launched = (self.launched | ready) - done
        for stage, buckets in enumerate((ready, done)):
            for bucket in buckets:
                self._turn[stage] += 1
                self._resume(bucket, stage)
        return bool(ready or done)


@several
def test_launching_in_order_of_readiness_is_found(monkeypatch):
    """Equal buckets of different parameters are then added to each other."""
    monkeypatch.setattr(loop, "StepRun", ByReadiness)
    specs = specs_of(*[20] * 6)
    averager = open_averager(specs, bucket_bytes=0, deadline_seconds=5.0)
    order = range(6) if RANK else range(5, -1, -1)
    gradients = [gradient_of(RANK, s, 0, i) for i, s in enumerate(specs)]
    for index in order:
        averager.ready(index, gradients[index])
        time.sleep(2e-3)
        averager.vote(False)  # ranks go together, so that the fault always shows
    averager.finish()
    with pytest.raises(AssertionError):
        assert_means(gradients, specs)
    averager.close()


@dataclass(frozen=True)
class Stages:
    """A lossless compressor with every kind of message and buckets that alternate."""

    name = "stages"
    fails: int = -1
    """Rank that raises in the second step."""

    def start(self, specs, place):
        return StagesReduction(specs, place, self.fails)

    def __repr__(self):
        return "Stages()"


class StagesReduction:
    phases, stages = 2, 3

    def __init__(self, specs, place, fails):
        self.specs, self.place, self.fails = specs, place, fails
        self.total = 0.0

    def phase(self, step):
        return step % 2

    def payload_bytes(self, index, phase):
        return 8 * self.specs[index].shape[0] if phase else 1 + 1000 * (index == 3)

    def reduce(self, indices, gradients, step):
        if self.place.rank == self.fails and step == 1:
            raise ZeroDivisionError("planted")
        size, mine = self.place.size, np.concatenate(gradients)
        rows = np.resize(mine, (size, -(-mine.size // size)))
        parts = yield AllToAll(np.ascontiguousarray(rows))
        if step % 2:
            gathered = yield Gather(parts.sum(axis=0))
            mean = gathered.ravel()[: mine.size] / size
        else:
            mean = (yield Sum(mine)) / size
        count = yield Sum(np.ones(1))
        assert count[0] == size
        self.total += mean.sum()
        for gradient, part in zip(
            gradients,
            np.split(mean, np.cumsum([g.size for g in gradients])[:-1]),
            strict=True,
        ):
            gradient[:] = part

    def state(self):
        return {"total": np.array([self.total, self.place.rank])}

    def load(self, states):
        mine = states[self.place.rank % len(states)]["total"]
        self.total = mine[0]


@pytest.mark.parametrize("progress", DRIVERS)
def test_several_stages_and_phases(progress):
    specs = specs_of(*[9, 30, 2, 50, 17, 4] * 2)
    chance = random.Random(RANK)
    with open_averager(
        specs, Stages(), progress=progress, bucket_bytes=600
    ) as averager:
        seen = set()
        for step in range(6):
            order = chance.sample(range(len(specs)), len(specs))
            assert_means(run_step(averager, specs, step, order, 1e-3), specs, step)
            seen.add(averager.statistics().buckets)
    assert len(seen) == 2


@pytest.mark.parametrize("kind", [Sum, Mean])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_sums_are_those_of_numpy_bit_for_bit(monkeypatch, dtype, kind):
    monkeypatch.setattr(messages, "LONG_SUM_BYTES", 1)
    lengths = (1, 15, 16, 17, 100, 1000, 4099)
    everyone = [vectors_of(rank, lengths, dtype) for rank in range(SIZE)]
    comm = COMM.Dup()
    channel = Channel(comm, Traffic(), longest=256)
    arrays = [vector.copy() for vector in everyone[RANK]]
    pending = [channel.post(kind(array)) for array in arrays]
    end = time.monotonic() + 20
    while sum(one.test() for one in pending) < len(pending):
        assert time.monotonic() < end
    comm.Barrier()
    comm.Free()
    for array, terms in zip(arrays, zip(*everyone, strict=True), strict=True):
        expected = terms[0]
        for term in terms[1:]:
            expected = expected + term
        if kind is Mean:
            expected = expected / expected.dtype.type(SIZE)
        assert np.array_equal(array, expected)


def test_a_short_mean_is_divided_once():
    comm = COMM.Dup()
    array = np.full(5, RANK + 1.0)
    pending = Channel(comm, Traffic()).post(Mean(array))
    end = time.monotonic() + 20
    while not pending.test():
        assert time.monotonic() < end
    assert pending.test()
    comm.Barrier()
    comm.Free()
    assert np.array_equal(array, np.full(5, (SIZE + 1) / 2))


def vectors_of(rank, lengths, dtype):
    rng = np.random.default_rng(rank)
    return [rng.standard_normal(length).astype(dtype) for length in lengths]


def test_large_gradients():
    """Beyond the limit from which sums go in chunks, several at a time."""
    specs = specs_of(280_000, 270_000, 10, dtype="float32")
    with open_averager(specs, bucket_bytes=1 << 20) as averager:
        assert_means(run_step(averager, specs), specs)


# Between steps.


@pytest.mark.parametrize("progress", DRIVERS)
def test_votes_and_broadcasts(progress):
    with open_averager(progress=progress) as averager:
        assert not averager.vote(False)
        assert averager.vote(RANK == LAST)
        arrays = [
            np.full((3, 2), RANK + 1.5),
            np.full(5, RANK, np.int8),
            np.array(RANK),
        ]
        averager.broadcast(arrays)
        assert (arrays[0] == 1.5).all()
        assert not arrays[1].any()
        assert arrays[2] == 0


def test_arrays_are_averaged_as_they_are():
    shapes = {"float64": (3, 4), "float32": (300_000,), "float16": (7,), "uint16": (7,)}
    specs = {name: Spec(shape, np.dtype(name)) for name, shape in shapes.items()}
    arrays = {n: gradient_of(RANK, s).reshape(s.shape) for n, s in specs.items()}
    arrays["uint16"] = np.full(7, 0x3F80 if RANK else 0x4000, np.uint16)  # 1.0, or 2.0
    with open_averager() as averager:
        averager.average(list(arrays.values()))
        with pytest.raises(ConfigError, match="can be averaged, got int64"):
            averager.average([np.arange(3)])
        with pytest.raises(ConfigError, match="contiguous"):
            averager.average([np.zeros((4, 4))[:, 0]])
    for name in ("float64", "float32"):
        assert np.array_equal(arrays[name].ravel(), mean_of(specs[name]))
    half = mean_of(Spec((7,), np.dtype("float32"))).astype(np.float16)
    assert np.array_equal(arrays["float16"], half)
    wide = (arrays["uint16"].astype(np.uint32) << 16).view(np.float32)
    assert np.allclose(wide, (SIZE + 1) / SIZE, rtol=2**-8)


def test_two_averagers_interleave():
    specs = specs_of(*SIZES)
    with open_averager() as one, open_averager(compressor=Cast("bfloat16")) as two:
        for step in range(3):
            mine = [gradient_of(RANK, s, step, i) for i, s in enumerate(specs)]
            others = [gradient_of(RANK, s, step, i) for i, s in enumerate(specs)]
            order = list(range(len(specs)))
            random.Random(RANK + step).shuffle(order)
            for index in order:
                (two if RANK % 2 else one).ready(
                    index, (others, mine)[RANK % 2 == 0][index]
                )
                (one if RANK % 2 else two).ready(
                    index, (mine, others)[RANK % 2 == 0][index]
                )
            two.finish()
            one.finish()
            assert_means(mine, specs, step)
            for index, (spec, mean) in enumerate(zip(specs, others, strict=True)):
                assert np.allclose(mean, mean_of(spec, step, index), rtol=2**-7)


def test_bytes_are_those_of_the_algorithm():
    specs = specs_of(*SIZES)
    with open_averager(specs, bucket_bytes=1 << 20) as averager:
        for step in range(3):
            run_step(averager, specs, step)
        found = averager.statistics()
    dense = 8 * sum(SIZES)
    assert found.bytes_sent == 3 * (2 * (SIZE - 1) * dense // SIZE)
    assert (found.steps, found.messages, found.buckets) == (3, 3, 1)
    assert found.seconds_compressing > 0.0
    assert found.seconds_waiting > 0.0


# States.


def test_a_state_goes_on_where_it_stopped():
    specs = specs_of(*SIZES)
    with open_averager(specs, Stages()) as averager:
        for step in range(3):
            run_step(averager, specs, step)
        own, states = averager.state_dict(), averager.gather_state()
    assert [state["rank"] for state in states] == list(range(SIZE))
    assert [s["reduction"]["total"][1] for s in states] == list(range(SIZE))
    for saved in (own, states):
        with open_averager(specs, Stages()) as averager:
            averager.load_state_dict(saved)
            assert averager.step == 3
            assert averager.state_dict()["reduction"]["total"][0] != 0.0
            assert_means(run_step(averager, specs, 3), specs, 3)


def test_states_that_do_not_fit_are_refused():
    with open_averager() as averager:
        own = averager.state_dict()
        with pytest.raises(ConfigError, match="loaded by the compressor that saved it"):
            averager.load_state_dict([own | {"compressor": "Other()"}])
        with pytest.raises(ConfigError, match="one rank's state fits rank 99"):
            averager.load_state_dict(own | {"rank": 99})
        few = [own | {"rank": r, "size": SIZE + 1} for r in range(SIZE)]
        with pytest.raises(ConfigError, match="load the whole list"):
            averager.load_state_dict(few)
        averager.ready(0, np.zeros(SIZES[0]))
        for call in (averager.state_dict, lambda: averager.load_state_dict(own)):
            with pytest.raises(ConfigError, match="between two steps"):
                call()
        for index, size in enumerate(SIZES[1:], start=1):
            averager.ready(index, np.zeros(size))
        averager.finish()


# Failures: every rank hears of them, soon.


def quick(began):
    assert time.monotonic() - began < 10.0  # the deadline is 20 s


@pytest.mark.parametrize("progress", DRIVERS)
def test_an_error_in_a_compressor_reaches_everyone(progress):
    averager = open_averager(compressor=Stages(fails=LAST), progress=progress)
    specs = specs_of(*SIZES)
    run_step(averager, specs, 0)
    COMM.Barrier()  # or some would hear of it before the first step is over
    began = time.monotonic()
    error, text = (
        (ZeroDivisionError, "planted")
        if RANK == LAST
        else (RemoteError, f"rank {LAST} failed: ZeroDivisionError: planted")
    )
    with pytest.raises(error, match=text):
        run_step(averager, specs, 1)
    quick(began)
    for call in (averager.finish, lambda: averager.vote(True), averager.close):
        with pytest.raises(error, match=text):
            call()
    assert not averager.clean


@several
@pytest.mark.parametrize(
    ("where", "progress"),
    [
        ("finish", "thread"),
        ("finish", "inline"),
        ("vote", "thread"),
        ("broadcast", "inline"),
        ("close", "thread"),
    ],
)
def test_an_error_of_the_caller_reaches_ranks_that_wait(where, progress):
    specs = specs_of(*SIZES)
    averager = open_averager(specs, progress=progress)
    began = time.monotonic()
    if RANK == 0:
        time.sleep(0.05)
        averager.close(KeyError("planted"))
        return
    calls = {
        "finish": lambda: run_step(averager, specs),
        "vote": lambda: averager.vote(True),
        "broadcast": lambda: averager.broadcast([np.zeros(3)]),
        "close": averager.close,
    }
    with pytest.raises(RemoteError, match="rank 0 failed: KeyError: 'planted'"):
        calls[where]()
    quick(began)


def test_leaving_with_an_error_closes_everywhere():
    averager = open_averager()
    error = KeyError if RANK == LAST else RemoteError
    with pytest.raises(error, match="planted"):
        leave(averager)
    assert not averager.clean


def leave(averager):
    with averager:
        if RANK == LAST:
            raise KeyError("planted")
        run_step(averager, specs_of(*SIZES))


def test_a_missing_gradient_fails_everywhere():
    specs = specs_of(*SIZES)
    averager = open_averager(specs)
    began = time.monotonic()
    if RANK == LAST:
        averager.ready(3, gradient_of(RANK, specs[3]))
        with pytest.raises(ConfigError, match="missing are those of number 0, 1, 2, 4"):
            averager.finish()
    else:
        with pytest.raises(RemoteError, match="missing are those of number"):
            run_step(averager, specs)
    quick(began)


@several
@pytest.mark.parametrize("progress", DRIVERS)
def test_a_rank_that_stands_still_is_given_up(progress):
    """It says nothing, so only the deadline ends the wait; it then hears of that."""
    specs = specs_of(*SIZES)
    averager = open_averager(specs, progress=progress, deadline_seconds=0.5)
    if RANK == LAST:
        time.sleep(1.0)
        with pytest.raises(RemoteError, match=r"no progress for 0\.5 s in message 1"):
            averager.vote(True)
        return
    with pytest.raises(
        (DeadlineExceeded, RemoteError), match=r"no progress for 0\.5 s"
    ):
        run_step(averager, specs)


@several
@pytest.mark.parametrize("what", ["sizes", "compressor"])
def test_ranks_that_disagree_do_not_start(what):
    odd = RANK == LAST
    options = {
        "sizes": {"specs": specs_of(5, 6 if odd else 7)},
        "compressor": {"compressor": Cast("bfloat16" if odd else "float16")},
    }[what]
    with pytest.raises(DisagreementError):
        open_averager(**options)


@dataclass(frozen=True)
class Unwilling:
    """Does not start on the last rank."""

    name = "unwilling"

    def start(self, specs, place):
        if place.rank == LAST:
            raise ConfigError("planted")
        return NoCompression().start(specs, place)


@pytest.mark.parametrize("case", ["compressor", "specs"])
def test_a_rank_that_cannot_start_tells_the_others(case):
    odd = RANK == LAST
    options = {
        "compressor": {"compressor": Unwilling()},
        "specs": {"specs": specs_of(3, dtype="int32" if odd else "float32")},
    }[case]
    with pytest.raises(ConfigError if odd else RemoteError):
        open_averager(**options)


def test_closing_is_final():
    averager = open_averager()
    averager.close()
    averager.close()
    assert averager.clean
    for call in (
        averager.finish,
        lambda: averager.ready(0, np.zeros(SIZES[0])),
        lambda: averager.vote(True),
    ):
        with pytest.raises(ConfigError, match="until close"):
            call()
