"""How fast the CPU kernels are: beside a plain copy, and beside torch's own steps.

Memory is the limit of every kernel, so that its bandwidth, counted in the arrays it has to
read and write, stands beside that of `numpy.copyto` on arrays of the same size. All are
measured in turn, on one thread and on random numbers; the medians are compared.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from acidmpi.kernels import load
from acidmpi.kernels.hyper import SGD, Adam, Hyper
from acidmpi.kernels.protocol import Array, Kernels

SIZE = 11_173_962
"""Parameters of ResNet-18 with ten classes."""

CHUNK_BYTES = 512 << 10
ROUNDS = 15

Result = dict[str, Any]


class Task(NamedTuple):
    """Something to be timed."""

    name: str
    streams: int
    """Arrays read plus arrays written; 0 if bandwidth says nothing."""

    work: Callable[[], None]


def run(size: int = SIZE, rounds: int = ROUNDS) -> list[Result]:
    """Measure everything.

    Returns:
        Of each measurement `name, value, unit, limit, ratio`: the limit is what plain
        copying or torch reaches in the same unit, the ratio is value / limit.
    """
    return [*_bandwidths(size, rounds), *_steps(rounds)]


def _bandwidths(size: int, rounds: int) -> list[Result]:
    arrays = _Arrays(size)
    copy = Task("copyto", 2, lambda: np.copyto(arrays.out, arrays.sent))
    tasks = [copy, *_reads(arrays), *_events(arrays)]
    seconds = _interleaved(tasks, arrays.refill, rounds)
    speeds = {t.name: t.streams * size * 4e-9 / seconds[t.name] for t in tasks}
    limit = speeds.pop(copy.name)
    return [_result(name, speed, "GB/s", limit) for name, speed in speeds.items()]


class _Arrays:
    """What the kernels work on, random numbers throughout."""

    def __init__(self, size: int) -> None:
        generator = np.random.default_rng(0)

        def draw() -> Array:
            return generator.standard_normal(size, dtype=np.float32)

        self.kernels: Kernels = load("cpu")
        self.x, self.x_tilde, self.sent, self.received = (draw() for _ in range(4))
        self.gradient, self.first, self.out, self.source = (draw() for _ in range(4))
        self.second = np.abs(draw())

    def refill(self) -> None:
        """Draw the gradient again, which the last step has zeroed."""
        np.copyto(self.gradient, self.source)

    def step(self, hyper: Hyper, x_tilde: bool) -> Callable[[], None]:
        """A gradient event as a task's work."""
        state = (self.first, self.second) if isinstance(hyper, Adam) else (self.first,)
        companion = self.x_tilde if x_tilde else None
        return lambda: self.kernels.apply_gradient(
            self.x, companion, self.gradient, state, 0.3, hyper
        )


def _reads(arrays: _Arrays) -> list[Task]:
    kernels, x, x_tilde = arrays.kernels, arrays.x, arrays.x_tilde
    chunk = CHUNK_BYTES // x.itemsize
    staging = np.empty(chunk, x.dtype)

    def by_chunks() -> None:
        for start in range(0, x.size, chunk):
            stop = min(start + chunk, x.size)
            part = staging[: stop - start]
            kernels.snapshot(x[start:stop], x_tilde[start:stop], part, 0.3)

    return [
        Task("snapshot, into a chunk in cache", 3, by_chunks),
        Task(
            "snapshot, whole",
            3,
            lambda: kernels.snapshot(x, x_tilde, arrays.out, 0.3),
        ),
    ]


def _events(arrays: _Arrays) -> list[Task]:
    kernels, x, x_tilde = arrays.kernels, arrays.x, arrays.x_tilde
    sent, received = arrays.sent, arrays.received
    momentum = SGD(1e-3, 0.9, weight_decay=5e-4, zero_gradient=True)
    nesterov = momentum._replace(nesterov=True)
    adam = Adam(1e-3, 0.9, 0.999, 1e-8, 5e-4, False, 10, zero_gradient=True)
    adamw = adam._replace(decoupled=True)
    # Zeroing writes the gradient: one stream more than the step itself.
    return [
        Task(
            "exchange",
            6,
            lambda: kernels.apply_exchange(x, x_tilde, sent, received, 0.01, 0.02),
        ),
        Task(
            "exchange, no x_tilde",
            4,
            lambda: kernels.apply_exchange(x, None, sent, received, 0.01, 0.01),
        ),
        Task(
            "mixing in place",
            4,
            lambda: kernels.apply_exchange(x, x_tilde, x, x_tilde, 0.01, -0.01),
        ),
        Task("SGD, momentum", 7 + 1, arrays.step(momentum, x_tilde=True)),
        Task("SGD, momentum, no x_tilde", 5 + 1, arrays.step(momentum, x_tilde=False)),
        Task("SGD, Nesterov", 7 + 1, arrays.step(nesterov, x_tilde=True)),
        Task("Adam", 9 + 1, arrays.step(adam, x_tilde=True)),
        Task("AdamW", 9 + 1, arrays.step(adamw, x_tilde=True)),
    ]


def _steps(rounds: int) -> list[Result]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tensors = _Tensors(torch)
        arrays = _Arrays(sum(math.prod(shape) for shape in resnet18_shapes()))
        hyper = SGD(1e-3, 0.9, weight_decay=5e-4, zero_gradient=True)
        ours = "SGD step"
        bare = "SGD step, no x_tilde"
        tasks = [
            Task("torch", 0, tensors.step(fused=False)),
            Task("torch, fused", 0, tensors.step(fused=True)),
            Task(ours, 0, arrays.step(hyper, x_tilde=True)),
            Task(bare, 0, arrays.step(hyper, x_tilde=False)),
        ]

        def refill() -> None:
            arrays.refill()
            tensors.refill()

        seconds = _interleaved(tasks, refill, rounds)
    finally:
        torch.set_num_threads(threads)
    return [
        _result(
            f"{name} beside {rival}", 1e3 * seconds[name], "ms", 1e3 * seconds[rival]
        )
        for name in (ours, bare)
        for rival in ("torch", "torch, fused")
    ]


class _Tensors:
    """The same parameters as torch holds them: one tensor for each layer's array."""

    def __init__(self, torch: Any) -> None:
        self._sgd = torch.optim.SGD
        self._parameters = [
            torch.randn(shape, requires_grad=True) for shape in resnet18_shapes()
        ]
        self._source = [torch.randn(shape) for shape in resnet18_shapes()]
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)

    def refill(self) -> None:
        for parameter, source in zip(self._parameters, self._source, strict=True):
            parameter.grad.copy_(source)

    def step(self, fused: bool) -> Callable[[], None]:
        """A step and the zeroing of the gradients as a task's work."""
        options = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "fused": fused}
        optimizer = self._sgd(self._parameters, **options)

        def work() -> None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

        return work


def resnet18_shapes() -> list[tuple[int, ...]]:
    """The 62 parameters of ResNet-18 for small images and ten classes."""
    shapes: list[tuple[int, ...]] = []

    def layer(outputs: int, inputs: int, kernel: int) -> None:
        shapes.extend([(outputs, inputs, kernel, kernel), (outputs,), (outputs,)])

    layer(64, 3, 3)
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for _ in range(2):
            layer(outputs, inputs, 3)
            layer(outputs, outputs, 3)
            if inputs != outputs:
                layer(outputs, inputs, 1)
            inputs = outputs
    return [*shapes, (10, 512), (10,)]


def _interleaved(
    tasks: list[Task], prepare: Callable[[], None], rounds: int
) -> dict[str, float]:
    """Median seconds of each task; in each round every task has its turn."""
    taken: dict[str, list[float]] = {task.name: [] for task in tasks}
    for number in range(1 + rounds):
        for task in tasks:
            prepare()
            start = time.perf_counter()
            task.work()
            if number:  # the first round compiles and touches memory
                taken[task.name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def _result(name: str, value: float, unit: str, limit: float) -> Result:
    ratio = value / limit
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ratio": ratio}


if __name__ == "__main__":
    for result in run():
        print(
            "{name:45} {value:8.2f} {unit:5} of {limit:8.2f}: {ratio:.2f}".format(
                **result
            )
        )
