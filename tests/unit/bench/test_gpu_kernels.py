"""The benchmark of a GPU's kernels on a stand-in whose clock knows what was moved."""

import sys

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.bench import gpu_kernels
from acidmpi.bench.cli import USAGE, main
from acidmpi.bench.gpu_kernels import (
    TASKS,
    Arrays,
    check_room,
    measure,
    number_of_sets,
)
from acidmpi.bench.gpu_options import GpuKernelsOptions
from acidmpi.errors import ConfigError
from acidmpi.kernels import load

SECONDS_PER_LAUNCH = 1e-3


class Guarded:
    """The reference's kernels with a device's two more."""

    def __init__(self):
        self._kernels = load("reference")
        self.searched = self.asked = 0

    def __getattr__(self, name):
        return getattr(self._kernels, name)

    def find_nonfinite(self, gradient, word, start):
        assert np.isfinite(gradient).all()
        assert (word.dtype, word.size, word[0], start) == (np.uint64, 1, 0, 0)
        self.searched += 1

    def unless(self, word):
        assert word[0] == 0
        self.asked += 1
        return self._kernels


class HostClock:
    """NumPy arrays; every launch takes equally long."""

    def __init__(self, cache_bytes=1 << 20, free=1 << 40):
        self.kernels = Guarded()
        self.cache_bytes = cache_bytes
        self._free = free
        self._chance = np.random.default_rng(0)
        self.recordings = []

    def free_bytes(self):
        return self._free

    def draw(self, size):
        return self._chance.standard_normal(size, np.float32)

    def word(self):
        return np.zeros(1, np.uint64)

    def copy(self, destination, origin):
        np.copyto(destination, origin)

    def recorded(self, launches):
        for launch in launches:
            launch()
        self.recordings.append(len(launches))
        return lambda times: times * len(launches) * SECONDS_PER_LAUNCH


def test_bandwidth_counts_what_each_kernel_must_read_and_write():
    size, clock = 1000, HostClock()
    figures = measure(size, 2, clock)
    assert len(figures) == len(TASKS) - 1
    for figure, task in zip(figures, TASKS[1:], strict=True):
        launches = 2 if "and a copy" in task.name else 1
        expected = task.streams * 4 * size / (launches * SECONDS_PER_LAUNCH) * 1e-9
        assert figure.value == pytest.approx(expected), task.name
        assert figure.rival == pytest.approx(2 * 4 * size / SECONDS_PER_LAUNCH * 1e-9)
        assert figure.at_least == 0.85


def test_long_vectors_have_to_come_closer_to_a_copy(monkeypatch):
    monkeypatch.setattr(gpu_kernels, "LONG", 100)
    assert {f.at_least for f in measure(100, 1, HostClock())} == {0.95}


SEARCH = next(task for task in TASKS if "search" in task.name)


def test_the_search_reads_the_gradient_and_writes_nothing():
    arrays = Arrays(50, HostClock())
    (launch,) = SEARCH.launches(arrays)
    launch()
    assert arrays.clock.kernels.searched == SEARCH.streams == 1


@pytest.mark.parametrize(
    "task", [t for t in TASKS if t is not SEARCH], ids=lambda task: task.name
)
def test_streams_are_the_arrays_that_a_kernel_reads_and_writes(task):
    """Written: those that change. Read: those on which the written ones depend."""

    def after(changed=None):
        arrays = Arrays(50, HostClock())
        held = {n: v for n, v in vars(arrays).items() if getattr(v, "size", 1) > 1}
        if changed:
            held[changed] *= 1.5
        before = {name: values.copy() for name, values in held.items()}
        for launch in task.launches(arrays)[-1:]:
            launch()
        assert arrays.clock.kernels.asked == ("guarded" in task.name)
        return before, held

    before, usual = after()
    written = {n for n in usual if not np.array_equal(before[n], usual[n])}

    def depends_on(name):
        _, held = after(name)
        return any(not np.array_equal(held[n], usual[n]) for n in written)

    read = {name for name in usual if depends_on(name)}
    of_copy = 2 if "and a copy" in task.name else 0
    assert task.streams == len(read) + len(written) + of_copy, (read, written)


def test_sets_take_turns_until_the_cache_is_cold():
    clock = HostClock(cache_bytes=8000)
    sets = number_of_sets(1000, clock)
    assert sets * 2 * 4 * 1000 >= gpu_kernels.COLD * clock.cache_bytes
    measure(1000, 1, clock)
    assert clock.recordings[0] == sets
    assert number_of_sets(10**9, clock) == 1


def test_a_gpu_that_is_nearly_full_gets_fewer_sets_and_too_much_is_refused():
    clock = HostClock(cache_bytes=1 << 30, free=9 * 4 * 1000 * 3)
    assert number_of_sets(1000, clock) == 2
    with pytest.raises(ConfigError, match="give smaller --sizes"):
        check_room(4000, clock)


@pytest.mark.parametrize("sizes", ["", "1,,2", "0", "-5", "1e6", "many"])
def test_sizes_that_are_none(sizes):
    with pytest.raises(ConfigError, match="--sizes must be"):
        GpuKernelsOptions(sizes=sizes)


def test_without_cupy_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["gpu-kernels"], MPI.COMM_SELF) == USAGE
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "needs a GPU" in told[0]
    assert "acidmpi[cuda13]" in told[0]
