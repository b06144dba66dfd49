"""Horovod's `DistributedOptimizer`."""

import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from acidmpi.compat.horovod.basics import Average, ReduceOp, Sum, session
from acidmpi.compat.horovod.compression import Compression, own
from acidmpi.compat.horovod.handles import checked_operator
from acidmpi.compat.horovod.passes import Passes, checked
from acidmpi.compat.horovod.process_sets import (
    ProcessSet,
    check_global,
    global_process_set,
)
from acidmpi.compat.operations import STEP, step_agreed
from acidmpi.compat.session import Session
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import ConfigError
from acidmpi.parallel.torch import optimizer as own_optimizer

Groups = int | Sequence[Sequence[Tensor]] | None


class HorovodOptimizer(own_optimizer.DistributedOptimizer):
    """An `acidmpi.DistributedOptimizer` that counts backward passes and may sum.

    Args:
        optimizer: what it wraps.
        named_parameters: as for `acidmpi.DistributedOptimizer`.
        here: the session.
        compression: a compressor of acidmpi.
        passes: backward passes that make one step.
        op: Average or Sum.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]] | None,
        here: Session,
        compression: Any,
        passes: int,
        op: ReduceOp,
    ) -> None:
        counter = Passes(passes, self.no_sync)
        held = [p for group in optimizer.param_groups for p in group["params"]]
        with ExitStack() as failed:
            failed.callback(counter.close)
            counter.watch(held)
            here.meet("DistributedOptimizer")
            super().__init__(
                optimizer,
                named_parameters,
                comm=here.comm,
                compression=compression,
                nonfinite="skip",
                progress=here.progress,
                deadline_seconds=here.seconds,
            )
            failed.pop_all()
        self._horovod = _Extension(
            here, counter, len(here.empty_steps), here.size if op is Sum else 1
        )
        counter.begin()
        here.empty_steps.append(self._contribute_nothing)
        here.optimizers.append(self)

    @property
    def backward_passes_per_step(self) -> int:
        """How many backward passes make one step."""
        return self._horovod.passes.per_step

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Change how many backward passes make one step; between steps only."""
        self._horovod.passes.per_step = checked(passes)
        self._horovod.passes.begin()

    def synchronize(self, scaler: Any = None) -> None:
        """Replace gradients by their means, or sums; collective. Once in a step.

        Where a gradient is not finite on some rank, all become infinite on all ranks and
        the step will be skipped.

        Args:
            scaler: as for `acidmpi.DistributedOptimizer`; Horovod's has no argument.
        """
        if not self.synchroniser.done:
            ours = self._horovod
            operations = ours.here.operations
            agreed = step_agreed(operations.comm, ours.number, operations.seconds)
            operations.run(f"{STEP}{ours.number}", agreed)
            super().synchronize(scaler)
            ours.passes.begin()
            self._finish()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients, and count backward passes anew."""
        super().zero_grad(set_to_none)
        self._horovod.passes.begin()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as torch does; on all ranks."""
        super().add_param_group(param_group)
        self._horovod.passes.watch(self.param_groups[-1]["params"])

    def close(self, error: BaseException | None = None) -> None:
        """Become the plain optimizer again; collective. A second call does nothing."""
        extension = vars(self).pop("_horovod", None)
        if extension is not None:
            extension.passes.close()
        super().close(error)

    def synchronise_for_step(self) -> None:
        """What `step` does first."""
        if self.may_synchronise:
            self.synchronize()
        else:
            super().synchronise_for_step()

    def _contribute_nothing(self) -> None:
        """Take part in one step of the other ranks with zeros for gradients."""
        for parameter in self._parameters():
            parameter.grad = None
        super().synchronize()
        self.synchroniser.begin()
        self._horovod.passes.begin()

    def _finish(self) -> None:
        if self.synchroniser.skipping:
            warnings.warn(
                "a gradient is not finite on some rank: this step is skipped on all",
                RuntimeWarning,
                stacklevel=3,
            )
            for parameter in self._parameters():
                parameter.grad = torch.full_like(parameter, torch.inf)
        elif self._horovod.factor != 1:
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._horovod.factor)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


class _Extension(NamedTuple):
    """What a Horovod optimizer has beyond ours, under one attribute."""

    here: Session
    passes: Passes
    number: int
    """Among the optimizers of the session."""
    factor: int
    """From the mean to what was asked for."""


def DistributedOptimizer(
    optimizer: Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]] | None = None,
    compression: Any = Compression.none,
    backward_passes_per_step: int = 1,
    op: ReduceOp = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: Groups = None,
    sparse_as_dense: bool = False,
    process_set: ProcessSet = global_process_set,
) -> HorovodOptimizer:
    """Wrap an optimizer so that it averages gradients over ranks; collective.

    Args:
        optimizer: any torch optimizer.
        named_parameters: pairs of a name and a parameter, for all that it holds.
        compression: Compression.none, Compression.fp16, or a compressor of acidmpi.
        backward_passes_per_step: after how many backward passes gradients, which add up,
            are averaged.
        op: Average or Sum.
        gradient_predivide_factor: without effect: means are formed without overflow.
        num_groups: deprecated; without effect.
        groups: without effect: parameters are grouped by size.
        sparse_as_dense: without effect: sparse gradients always become dense.
        process_set: must be `global_process_set`.

    Returns:
        An object of a class that derives from that of `optimizer`.

    Raises:
        UnsupportedError: another op, compression or process set.
        ConfigError: an argument makes no sense.
    """
    check_global(process_set)
    del groups, sparse_as_dense
    chosen = checked_operator(op)
    if chosen not in (Average, Sum):
        raise UnsupportedError(f"op={chosen.name} of gradients", "use Average or Sum")
    if gradient_predivide_factor != 1.0 and chosen != Average:
        raise ConfigError(
            "gradient_predivide_factor is for op=Average only, got "
            f"{gradient_predivide_factor} with op={chosen.name}; leave it out"
        )
    if num_groups != 0:
        warnings.warn(
            "num_groups= is deprecated and has no effect; leave it out",
            DeprecationWarning,
            stacklevel=2,
        )
    return HorovodOptimizer(
        optimizer,
        named_parameters,
        session(),
        own(compression),
        backward_passes_per_step,
        chosen,
    )
