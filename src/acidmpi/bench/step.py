"""One step of the optimizer beside torch's, on one rank and one thread.

`Worker.step(zero_grad=True)` checks the gradients, mixes x and x̃, applies SGD with
momentum to both and zeroes the gradients; torch's part is `step()` and
`zero_grad(set_to_none=False)`. Gradients are random and new before each step. A rank
alone mixes by a weight of zero, for which the kernel has no shortcut.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mpi4py import MPI
from torch import nn

from acidmpi.bench.options import StepOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.timing import interleaved
from acidmpi.errors import ConfigError
from acidmpi.tasks.resnet import resnet
from acidmpi.worker.torch.worker import Worker

TORCH, FUSED = "torch", "torch fused"
METHODS = ("a2cid2", "async")


def run(options: StepOptions, comm: MPI.Comm) -> list[Figure]:
    """Time the steps in turn."""
    if comm.size != 1:
        raise ConfigError(f"a step is measured on 1 rank, got {comm.size}")
    with one_thread(), ExitStack() as stack:
        contestants = {
            TORCH: Contestant(options, _torch_step(fused=False)),
            FUSED: Contestant(options, _torch_step(fused=True)),
        }
        for method in METHODS:
            step = _own_step(method, comm, stack)
            contestants[method] = Contestant(options, step)
        seconds = interleaved(
            comm,
            {name: contestant.step for name, contestant in contestants.items()},
            options.rounds,
            lambda name: contestants[name].refill(),
        )
    return list(_figures(seconds))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Step = Callable[[], object]
MakeStep = Callable[[nn.Module, torch.optim.Optimizer], Step]


class Contestant:
    """A network of its own, and one way to make a step with it.

    Args:
        options: which network.
        make: from the network and an optimizer to the step.
    """

    def __init__(self, options: StepOptions, make: MakeStep) -> None:
        torch.manual_seed(0)
        module = resnet(int(options.depth))
        self._parameters = list(module.parameters())
        self._source = [torch.randn_like(p) for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.step = make(module, _sgd(self._parameters))

    def refill(self) -> None:
        """Gradients as they were before the last step zeroed them."""
        for parameter, source in zip(self._parameters, self._source, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(source)


def _sgd(parameters: Any, **more: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, 1e-3, 0.9, weight_decay=5e-4, **more)


def _torch_step(*, fused: bool) -> MakeStep:
    def make(module: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        if fused:
            optimizer = _sgd(module.parameters(), fused=True)

        def step() -> None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

        return step

    return make


def _own_step(method: str, comm: MPI.Comm, stack: ExitStack) -> MakeStep:
    def make(module: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        worker = Worker(module, optimizer, comm=comm, method=method)
        stack.enter_context(worker)
        return lambda: worker.step(zero_grad=True)

    return make


def _figures(seconds: dict[str, float]) -> Iterator[Figure]:
    for method in METHODS:
        for rival in (TORCH, FUSED):
            yield Figure(
                name=f"step, {method}, beside {rival}",
                value=1e3 * seconds[method],
                unit="ms",
                rival=1e3 * seconds[rival],
                beside=rival,
                at_most=0.7 if rival == TORCH else None,
            )
