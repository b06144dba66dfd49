"""How fast the kernels of a GPU are, beside a plain copy from device memory to itself.

Memory is the limit of every kernel, so its bandwidth, counted in the arrays it has to read
and write, stands beside a copy's at the same length. Several sets of arrays take turns, so
that none finds its own data in the cache. All work in turn on random numbers; medians are
compared.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from mpi4py import MPI

from acidmpi.bench.gpu_clock import Clock, GpuClock, Launch
from acidmpi.bench.gpu_options import GpuKernelsOptions
from acidmpi.bench.report import Figure
from acidmpi.errors import ConfigError
from acidmpi.kernels.hyper import SGD, Adam, Hyper
from acidmpi.kernels.protocol import Array, Kernels

LONG = 100_000_000
"""Numbers from which on a kernel has to come close to a copy."""

LEAST_LONG, LEAST_SHORT = 0.95, 0.85
COLD = 4
"""All sets together are so many times larger than the cache, even for a copy."""

MOST_OF_MEMORY = 0.9
ARRAYS = 9
"""Of one set."""

LEAST_SECONDS = 2e-3
"""How long one timing lasts; a GPU's clock ticks in half microseconds."""


def run(options: GpuKernelsOptions, comm: MPI.Comm) -> list[Figure]:
    """Measure each kernel at each size."""
    if comm.size != 1:
        raise ConfigError(f"kernels of a GPU are measured on 1 rank, got {comm.size}")
    sizes, clock = options.lengths, GpuClock()
    check_room(max(sizes), clock)
    return [one for size in sizes for one in measure(size, options.rounds, clock)]


def check_room(size: int, clock: Clock) -> None:
    """Refuse a size for which there is no memory.

    Raises:
        ConfigError: there is none.
    """
    needed, free = ARRAYS * 4 * size, clock.free_bytes()
    if needed > MOST_OF_MEMORY * free:
        raise ConfigError(
            f"the arrays of {size:,} numbers need {needed / 2**30:.1f} GiB of the GPU's "
            f"memory, {free / 2**30:.1f} GiB are free; give smaller --sizes"
        )


class Task(NamedTuple):
    """Something to be timed."""

    name: str
    streams: int
    """Arrays read plus arrays written."""

    launches: Callable[["Arrays"], list[Launch]]
    """What it launches for one set, one after the other."""


class Arrays:
    """One set of what the kernels work on: random numbers throughout.

    Args:
        size: numbers in an array.
        clock: where the arrays are.
    """

    def __init__(self, size: int, clock: Clock) -> None:
        self.clock = clock
        self.x, self.x_tilde, self.sent, self.received = self._draw(size, 4)
        self.gradient, self.source, self.first, self.out = self._draw(size, 4)
        (self.second,) = self._draw(size, 1)
        # A mean of squares: replaced by what a square is, without another array.
        self.second *= self.second
        self.word = clock.word()

    def _draw(self, size: int, count: int) -> list[Array]:
        return [self.clock.draw(size) for _ in range(count)]

    def step(self, hyper: Hyper, x_tilde: bool = True) -> Launch:
        """A gradient event."""
        return self._event(self.clock.kernels, hyper, x_tilde)

    def guarded(self, hyper: Hyper) -> Launch:
        """The same if nothing says that the gradient is not finite."""
        return self._event(self.clock.kernels.unless(self.word), hyper, True)

    def search(self) -> None:
        """For what is not finite."""
        self.clock.kernels.find_nonfinite(self.gradient, self.word, 0)

    def _event(self, kernels: Kernels, hyper: Hyper, x_tilde: bool) -> Launch:
        state = (self.first, self.second) if isinstance(hyper, Adam) else (self.first,)
        companion = self.x_tilde if x_tilde else None
        return lambda: kernels.apply_gradient(
            self.x, companion, self.gradient, state, 0.3, hyper
        )


def measure(size: int, rounds: int, clock: Clock) -> list[Figure]:
    """The bandwidth of each kernel on arrays of one size, beside a copy's.

    Args:
        size: numbers in an array.
        rounds: how often each is timed.
        clock: the device.
    """
    sets = [Arrays(size, clock) for _ in range(number_of_sets(size, clock))]
    seconds = _interleaved(sets, rounds, clock)
    speeds = {t.name: t.streams * 4e-9 * size / seconds[t.name] for t in TASKS}
    copy = speeds.pop(COPY.name)
    asked = LEAST_LONG if size >= LONG else LEAST_SHORT
    note = f"{len(sets)} sets of arrays in turn"
    return [
        Figure(
            name=f"{name}, {size:,}",
            value=speed,
            unit="GB/s",
            rival=copy,
            beside="copy",
            at_least=asked,
            note=note,
        )
        for name, speed in speeds.items()
    ]


def number_of_sets(size: int, clock: Clock) -> int:
    """So many that a copy, too, finds none of its data in the cache; memory allowing."""
    wanted = -(-COLD * clock.cache_bytes // (2 * 4 * size))
    room = int(MOST_OF_MEMORY * clock.free_bytes()) // (ARRAYS * 4 * size)
    return max(1, min(wanted, room))


def _interleaved(sets: list[Arrays], rounds: int, clock: Clock) -> dict[str, float]:
    """Median seconds of each task on one set; in each round each has its turn."""
    replays = {task.name: clock.recorded(_in_turn(task, sets)) for task in TASKS}
    times = {name: _repeats(replay(1)) for name, replay in replays.items()}
    taken: dict[str, list[float]] = {name: [] for name in replays}
    names = list(replays)
    for _ in range(rounds):
        for name in names:
            repeated = replays[name](times[name])
            taken[name].append(repeated / times[name] / len(sets))
        names.reverse()
    return {name: statistics.median(found) for name, found in taken.items()}


def _repeats(seconds: float) -> int:
    return max(1, int(LEAST_SECONDS / max(seconds, 1e-9)))


def _in_turn(task: Task, sets: list[Arrays]) -> list[Launch]:
    """First launches of all sets, then second ones: no set meets its data in the cache."""
    every = [task.launches(arrays) for arrays in sets]
    return [launch for launches in zip(*every, strict=True) for launch in launches]


def _copy(a: Arrays) -> list[Launch]:
    return [lambda: a.clock.copy(a.out, a.sent)]


def _snapshot(a: Arrays) -> list[Launch]:
    return [lambda: a.clock.kernels.snapshot(a.x, a.x_tilde, a.out, 0.3)]


def _exchange(a: Arrays) -> list[Launch]:
    kernels = a.clock.kernels
    return [
        lambda: kernels.apply_exchange(a.x, a.x_tilde, a.sent, a.received, 1e-4, 2e-4)
    ]


def _exchange_alone(a: Arrays) -> list[Launch]:
    kernels = a.clock.kernels
    return [lambda: kernels.apply_exchange(a.x, None, a.sent, a.received, 1e-4, 1e-4)]


def _mix(a: Arrays) -> list[Launch]:
    kernels = a.clock.kernels
    return [lambda: kernels.apply_exchange(a.x, a.x_tilde, a.x, a.x_tilde, 1e-3, -1e-3)]


def _zeroing(a: Arrays) -> list[Launch]:
    """The gradient comes back by a copy, which is timed, too."""
    refill: Launch = lambda: a.clock.copy(a.gradient, a.source)  # noqa: E731
    return [refill, a.step(MOMENTUM._replace(zero_gradient=True))]


MOMENTUM = SGD(1e-4, 0.9, weight_decay=5e-4)
ADAM = Adam(1e-4, 0.9, 0.999, 1e-8, 5e-4, False, 10)

COPY = Task("copy", 2, _copy)
TASKS = (
    COPY,
    Task("snapshot", 3, _snapshot),
    Task("exchange", 6, _exchange),
    Task("exchange, no x_tilde", 4, _exchange_alone),
    Task("mixing in place", 4, _mix),
    Task("SGD, momentum", 7, lambda a: [a.step(MOMENTUM)]),
    Task("SGD, momentum, no x_tilde", 5, lambda a: [a.step(MOMENTUM, x_tilde=False)]),
    Task("SGD, Nesterov", 7, lambda a: [a.step(MOMENTUM._replace(nesterov=True))]),
    Task("SGD, zeroing, and a copy", 8 + 2, _zeroing),
    Task("Adam", 9, lambda a: [a.step(ADAM)]),
    Task("AdamW", 9, lambda a: [a.step(ADAM._replace(decoupled=True))]),
    Task("search for NaN and infinity", 1, lambda a: [a.search]),
    Task("SGD, momentum, guarded", 7, lambda a: [a.guarded(MOMENTUM)]),
    Task("AdamW, guarded", 9, lambda a: [a.guarded(ADAM._replace(decoupled=True))]),
)
