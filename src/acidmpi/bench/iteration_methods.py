"""Ways to average gradients, each as a contestant that makes iterations.

`none` computes and sends nothing, `ddp` and `ddp-powersgd` are torch's
DistributedDataParallel over gloo, and every other name is a compressor of this package
under `DistributedOptimizer`.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, final

import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power
from torch.nn.parallel import DistributedDataParallel

from acidmpi.bench.iteration_figures import DDP, DDP_POWER, LOW_RANK, NONE
from acidmpi.bench.iteration_gloo import gloo
from acidmpi.bench.models import Workload, make_workload
from acidmpi.bench.options import IterationOptions
from acidmpi.compression import registry
from acidmpi.config.options import did_you_mean
from acidmpi.errors import ConfigError
from acidmpi.parallel.torch.optimizer import DistributedOptimizer

ALIASES = {"ssgd": "none", "sign": "signvote"}
"""Names of the literature that the registry calls differently."""

SEVERAL = "several"
"""In the place of a method's name: look at `methods`."""

TAKEN = {
    **dict.fromkeys(LOW_RANK, ("matrix_rank", "start_step")),
    **dict.fromkeys(("topk", "randomk", "randomblock"), ("density",)),
    "qsgd": ("bits",),
}
"""Which options of the command go to which compressor."""

LEARNING_RATE = 0.01
"""Times the number of ranks."""

FIRST_DDP_POWER = 2
"""Torch's hook refuses to compress sooner."""


class Parts(NamedTuple):
    """Seconds of an iteration, as the thread that trains sees them."""

    forward: float
    backward: float
    update: float
    """In `step`: waiting for messages that are still on their way included."""


class Counters(NamedTuple):
    """What the averagers of a contestant have counted, or what was added since."""

    bytes_sent: float = 0.0
    seconds_compressing: float = 0.0

    def since(self, earlier: "Counters") -> "Counters":
        """What has been added since `earlier`."""
        return Counters(*(a - b for a, b in zip(self, earlier, strict=True)))


@final
class Contestant:
    """A model, a batch, and one way to make iterations with them.

    Args:
        workload: the batch and its loss.
        module: the model, or a wrapper around it.
        optimizer: takes the step.
    """

    def __init__(
        self, workload: Workload, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.workload = workload
        self._module = module
        self._optimizer = optimizer

    @property
    def averaging(self) -> DistributedOptimizer | None:
        """The optimizer, where it is this package's."""
        mine = self._optimizer
        return mine if isinstance(mine, DistributedOptimizer) else None

    def iterate(self) -> Parts:
        """Make one iteration."""
        self._optimizer.zero_grad()
        began = time.perf_counter()
        loss = self._loss()
        computed = time.perf_counter()
        torch.autograd.backward(loss)
        derived = time.perf_counter()
        self._optimizer.step()
        done = time.perf_counter()
        return Parts(computed - began, derived - computed, done - derived)

    def synchronise_alone(self, comm: MPI.Comm) -> float:
        """Seconds to average the gradients of a backward pass that is over.

        Zero for those that are not this package's.
        """
        if (averaging := self.averaging) is None:
            return 0.0
        averaging.zero_grad()
        with averaging.no_sync():
            torch.autograd.backward(self._loss())
        comm.Barrier()
        began = time.perf_counter()
        averaging.synchronize()
        seconds = time.perf_counter() - began
        averaging.step()
        return seconds

    def _loss(self) -> Tensor:
        return self.workload.loss(self._module(*self.workload.inputs))

    def counters(self) -> Counters:
        """Zeros for those that are not this package's."""
        if self.averaging is None:
            return Counters()
        found = self.averaging.statistics()
        return Counters(found.bytes_sent, found.seconds_compressing)


def chosen(options: IterationOptions) -> list[str]:
    """The methods to compare, each once, rivals first.

    Raises:
        ConfigError: an unknown name, or too short a warm-up for a method.
    """
    text = options.methods if options.method == SEVERAL else options.method
    names = [name.strip() for name in text.split(",")]
    for name in names:
        _known(name)
    if options.rivals:
        names = [*_rivals(names), *names]
    if any(name in (*LOW_RANK, DDP_POWER) for name in names):
        _check_warmup(options)
    return list(dict.fromkeys(names))


def _known(name: str) -> None:
    known = [NONE, DDP, DDP_POWER, *ALIASES]
    known += [n for n in registry.names() if n not in known]
    if name not in known:
        raise ConfigError(
            f"--methods takes {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"
        )


def _rivals(names: Sequence[str]) -> list[str]:
    low_rank = any(name in LOW_RANK for name in names)
    return [NONE, DDP, *([DDP_POWER] if low_rank else [])]


def _check_warmup(options: IterationOptions) -> None:
    least = max(options.start_step, FIRST_DDP_POWER)
    if options.warmup < least:
        raise ConfigError(
            f"low-rank methods compress from step {least} on, so --warmup must be at "
            f"least {least}, got {options.warmup}; raise it, or lower --start-step"
        )


def network(
    names: Sequence[str], comm: MPI.Comm, seconds: float
) -> AbstractContextManager[None]:
    """What the methods need while they run: gloo, where torch's own are among them."""
    needed = any(name in (DDP, DDP_POWER) for name in names)
    return gloo(comm, seconds) if needed else nullcontext()


@contextmanager
def contestant(
    name: str, options: IterationOptions, comm: MPI.Comm
) -> Iterator[Contestant]:
    """Make method `name` ready to run; collective, like every iteration of it."""
    workload = make_workload(
        options.model,
        batch_size=options.batch_size,
        image_size=options.image_size,
        sentence_length=options.sentence_length,
        rank=comm.rank,
    )
    parameters = workload.module.parameters()
    sgd = torch.optim.SGD(parameters, LEARNING_RATE * comm.size)
    if name == NONE:
        yield Contestant(workload, workload.module, sgd)
    elif name in (DDP, DDP_POWER):
        module = _ddp(name, workload.module, options)
        yield Contestant(workload, module, sgd)
    else:
        with _distributed(name, sgd, workload.module, options, comm) as optimizer:
            yield Contestant(workload, workload.module, optimizer)


def _ddp(name: str, module: nn.Module, options: IterationOptions) -> nn.Module:
    """Torch's wrapper; with its hook in one bucket.

    The hook sends a bucket's second message from a callback, so several buckets would
    send theirs in an order that differs between ranks, which gloo takes as one sequence.
    """
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    bucket_bytes = options.bucket_bytes if name == DDP else 2 * size
    with warnings.catch_warnings():
        # Newer versions of torch call the option by another name.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = DistributedDataParallel(
            module,
            bucket_cap_mb=bucket_bytes / (1 << 20),
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    if name == DDP_POWER:
        state = power.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=options.matrix_rank,
            start_powerSGD_iter=max(options.start_step, FIRST_DDP_POWER),
        )
        wrapped.register_comm_hook(state, power.powerSGD_hook)
    return wrapped


def _distributed(
    name: str,
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    options: IterationOptions,
    comm: MPI.Comm,
) -> DistributedOptimizer:
    known = ALIASES.get(name, name)
    given: dict[str, Any] = {k: getattr(options, k) for k in TAKEN.get(known, ())}
    return DistributedOptimizer(
        optimizer,
        module.named_parameters(),
        comm=comm,
        compression=registry.make(known, **given),
        bucket_bytes=options.bucket_bytes,
        deadline_seconds=options.deadline_seconds,
    )
