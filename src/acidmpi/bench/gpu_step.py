"""What the communication loop costs a training step on a GPU, and what `step()` costs.

Two ways take turns on all ranks: each rank trains alone, and all train together at one
exchange a gradient. Both run the same network, data, optimizer and kernels; what differs
is communication. Then `step()` alone is timed on the host, while the device has nothing to
do, and the memory that the worker added is read from the allocators.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from mpi4py import MPI
from torch import nn

from acidmpi.bench.gpu_clock import cupy_with_gpu
from acidmpi.bench.gpu_options import GpuStepOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.timing import timed
from acidmpi.mpi.nodes import find_node
from acidmpi.tasks.resnet import resnet
from acidmpi.worker.torch.worker import Worker

CLASSES = 1000
MOST_COST = 1.03
"""Of a step with communication, relative to one without."""

MOST_STEP_MICROSECONDS = 50.0
STAGING_BYTES = 64 << 20
HOST_STEPS = 50
MEMORY_STEPS = 5


class Machine(Protocol):
    """Where tensors are; tests have one without a GPU."""

    device: torch.device

    def finish(self) -> None:
        """Wait for all that was queued."""
        ...

    def used_bytes(self) -> int:
        """What allocators have taken from the device, at most, since `forget`."""
        ...

    def forget(self) -> None:
        """Count from here."""
        ...

    def watched(self) -> AbstractContextManager[list[Any]]:
        """A list that gets an entry for each time that torch waits for the device."""
        ...


class Cuda:
    """One GPU.

    Args:
        index: its number among the visible ones.

    Raises:
        ConfigError: there is no GPU, or no CuPy.
    """

    def __init__(self, index: int) -> None:
        self._cupy = cupy_with_gpu()
        self.device = torch.device("cuda", index % torch.cuda.device_count())
        torch.cuda.set_device(self.device)
        torch.backends.cudnn.benchmark = True

    def finish(self) -> None:
        """See `Machine`."""
        torch.cuda.synchronize(self.device)

    def used_bytes(self) -> int:
        """See `Machine`."""
        pool = self._cupy.get_default_memory_pool()
        return torch.cuda.max_memory_allocated(self.device) + int(pool.total_bytes())

    def forget(self) -> None:
        """See `Machine`."""
        self.finish()
        self._cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def watched(self) -> Iterator[list[Any]]:
        """See `Machine`; torch warns of each."""
        always = torch.is_warn_always_enabled()
        torch.set_warn_always(True)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.set_warn_always(always)


def run(options: GpuStepOptions, comm: MPI.Comm) -> list[Figure]:
    """Time both ways in turn; collective."""
    node = find_node(comm, options.deadline_seconds)
    return measure(options, comm, Cuda(node.local_rank))


def measure(
    options: GpuStepOptions,
    comm: MPI.Comm,
    machine: Machine,
    make: Callable[[], nn.Module] | None = None,
) -> list[Figure]:
    """The figures on a machine.

    Args:
        options: what to train, how long.
        comm: the ranks.
        machine: where.
        make: the network; by default the one of the options.
    """
    course = Course(options, machine, make or (lambda: _network(options)))
    taken: dict[str, list[float]] = {"together": [], "alone": []}
    for number in range(options.rounds):
        turns = ("alone", "together") if number % 2 else ("together", "alone")
        for name in turns:
            ranks = comm if name == "together" else MPI.COMM_SELF
            taken[name].append(course.step_seconds(comm, ranks))
    seconds = {name: statistics.median(found) for name, found in taken.items()}
    alone = course.step_alone()
    worst = comm.allreduce(alone.host_seconds, MPI.MAX)
    return _figures(seconds, alone._replace(host_seconds=worst), comm.size)


def _network(options: GpuStepOptions) -> nn.Module:
    return resnet(int(options.depth), classes=CLASSES, imagenet_stem=True)


class Alone(NamedTuple):
    """`step()` by itself."""

    host_seconds: float
    waits: int
    """How often torch waited for the device, in all steps."""

    added_bytes: int
    parameter_bytes: int


class Course:
    """One rank's training, again and again from the start.

    Args:
        options: what to train, how long.
        machine: where.
        make: the network.
    """

    def __init__(
        self, options: GpuStepOptions, machine: Machine, make: Callable[[], nn.Module]
    ) -> None:
        self._options, self._machine, self._make = options, machine, make
        side, batch = options.image_size, options.batch_size
        chance = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, side, side, generator=chance)
        labels = torch.randint(0, CLASSES, (batch,), generator=chance)
        self._images = images.to(machine.device, memory_format=torch.channels_last)
        self._labels = labels.to(machine.device)

    def step_seconds(self, comm: MPI.Comm, ranks: MPI.Comm) -> float:
        """Seconds of a step on the slowest rank.

        Args:
            comm: all ranks; they begin together.
            ranks: with whom this one exchanges.
        """
        module, optimizer = self._network()
        with self._worker(module, optimizer, ranks) as worker:

            def steps(count: int) -> None:
                for _ in range(count):
                    self._backward(module)
                    worker.step(zero_grad=True)
                self._machine.finish()

            steps(self._options.warmup)
            seconds = timed(comm, lambda: steps(self._options.steps))
        return seconds / self._options.steps

    def step_alone(self) -> Alone:
        """What `step()` costs the host, and the memory that the worker has added."""
        module, optimizer = self._network()
        parameters = sum(p.numel() * p.element_size() for p in module.parameters())
        self._machine.forget()
        before = self._machine.used_bytes()
        with self._worker(module, optimizer, MPI.COMM_SELF) as worker:
            # The first step moves gradients that torch has allocated: for a moment there
            # are two of each.
            self._some_steps(module, worker, 1)
            self._machine.forget()
            self._some_steps(module, worker, MEMORY_STEPS)
            added = self._machine.used_bytes() - before
            steps = [self._one_step(module, worker) for _ in range(HOST_STEPS)]
        seconds = statistics.median(taken for taken, _ in steps)
        return Alone(seconds, sum(waits for _, waits in steps), added, parameters)

    def _some_steps(self, module: nn.Module, worker: Worker, count: int) -> None:
        for _ in range(count):
            self._draw_gradients(module)
            worker.step()
        self._machine.finish()

    def _one_step(self, module: nn.Module, worker: Worker) -> tuple[float, int]:
        self._draw_gradients(module)
        self._machine.finish()
        with self._machine.watched() as waits:
            began = time.perf_counter()
            worker.step()
            return time.perf_counter() - began, len(waits)

    def _network(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = self._make().to(self._machine.device)
        return module, torch.optim.SGD(
            module.parameters(), 1e-4, 0.9, weight_decay=5e-5
        )

    def _worker(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, ranks: MPI.Comm
    ) -> Worker:
        asked = self._options.transport
        options: dict[str, Any] = {} if asked == "auto" else {"transport": asked}
        return Worker(module, optimizer, comm=ranks, comm_rate=1.0, **options)

    def _backward(self, module: nn.Module) -> None:
        halves = self._options.precision == "bfloat16"
        kind = self._machine.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=halves):
            found = nn.functional.cross_entropy(module(self._images), self._labels)
        torch.autograd.backward(found)

    def _draw_gradients(self, module: nn.Module) -> None:
        for parameter in module.parameters():
            if parameter.grad is None:
                parameter.grad = torch.randn_like(parameter)
            else:
                parameter.grad.normal_()


def _figures(seconds: dict[str, float], alone: Alone, ranks: int) -> list[Figure]:
    # Gradient, momentum, x̃, and what chunks are staged in.
    allowed = 3 * alone.parameter_bytes + STAGING_BYTES
    return [
        Figure(
            name="step, communicating",
            value=1e3 * seconds["together"],
            unit="ms",
            rival=1e3 * seconds["alone"],
            beside="each rank alone",
            at_most=MOST_COST,
            note=f"{ranks} ranks",
        ),
        Figure(
            name="step() on the host",
            value=1e6 * alone.host_seconds,
            unit="us",
            at_most=MOST_STEP_MICROSECONDS,
            note="the device idle",
        ),
        Figure(
            name="waits for the device in step()",
            value=alone.waits / HOST_STEPS,
            unit="",
            at_most=0,
            note="those that torch makes",
        ),
        Figure(
            name="memory added",
            value=alone.added_bytes / 2**20,
            unit="MiB",
            rival=allowed / 2**20,
            beside="gradient, momentum, x_tilde, 64 MiB",
            at_most=1.0,
            note="at most, after the first step",
        ),
    ]
