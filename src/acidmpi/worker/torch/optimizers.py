"""The step of a torch optimizer: fused updates on flat buffers, or its own `step()`.

Guarantees of a fused optimizer:
- hyper-parameters are read from `param_groups` at each step, so rate schedulers work;
- a parameter whose first gradient comes late has its own first step, as in torch;
- `optimizer.state_dict()` and `load_state_dict()` work as ever, in torch's own format.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from acidmpi.arrays.flat import Array, Run
from acidmpi.arrays.torch.model import FlatModel
from acidmpi.arrays.torch.trees import arrays_of, tensors_of
from acidmpi.arrays.torch.views import as_tensor, wide
from acidmpi.errors import ConfigError
from acidmpi.kernels.hyper import Hyper
from acidmpi.worker.state import Update
from acidmpi.worker.torch.flat_state import FlatState
from acidmpi.worker.torch.rules import Rule, has_step_hooks, rule_of

_STATELESS = -1
"""Key of parameters whose group uses no state now."""


def fuse(optimizer: Optimizer, model: FlatModel) -> "FusedOptimizer | None":
    """The optimizer as fused updates, or None if only its own `step()` will do."""
    rule = rule_of(optimizer)
    return None if rule is None else FusedOptimizer(optimizer, model, rule)


class _Launch(NamedTuple):
    """Neighbours of equal age, with their slices."""

    run: Run
    gradient: Array
    state: tuple[Array, ...]


class FusedOptimizer:
    """The steps of an optimizer as launches of `apply_gradient`.

    Args:
        optimizer: whose groups hold the numbers.
        model: where parameters and gradients live.
        rule: how this kind of optimizer maps onto the kernels.
    """

    def __init__(self, optimizer: Optimizer, model: FlatModel, rule: Rule) -> None:
        self._optimizer = optimizer
        self._model = model
        self._rule = rule
        self._sizes = _group_sizes(optimizer)
        self._state = FlatState(optimizer, model, rule)
        self._planned_for: object = None
        self._launches: list[_Launch] = []
        self._aging = np.zeros(0, np.intp)

    def rules(self) -> tuple[Hyper, ...]:
        """Hyper-parameters of each group now, to compile kernels beforehand."""
        groups = self._optimizer.param_groups
        return tuple(self._rule.hyper(group, 0, False) for group in groups)

    def updates(self, zero_gradient: bool = False) -> list[Update]:
        """The launches of one step; every call counts as a step.

        Args:
            zero_gradient: have the kernels clear the gradients in passing.
        """
        self._check()
        self._state.refresh()
        self._plan_if_needed()
        updates = [self._update(launch, zero_gradient) for launch in self._launches]
        self._count()
        return updates

    def counted(self) -> tuple[Array, object]:
        """What the last `updates` has counted, for `uncount`."""
        return self._aging, self._state.origin

    def uncount(self, counted: tuple[Array, object]) -> None:
        """A step was not made after all, as is learnt only now."""
        self._state.uncount(*counted)

    def state(self) -> dict[str, Any]:
        """Flat arrays, live, and a copy of the ages."""
        return self._state.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._state.restore(state)

    def close(self) -> None:
        """Let go of the optimizer; its state stays where it is."""
        self._state.close()

    def _check(self) -> None:
        _check_groups(self._optimizer, self._sizes)
        if has_step_hooks(self._optimizer):
            raise ConfigError(
                "step hooks are called only if they are registered before the worker "
                "is made, got one registered later"
            )

    def _plan_if_needed(self) -> None:
        """Gather parameters into launches whenever anything about them has changed."""
        stateful = [self._rule.stateful(g) for g in self._optimizer.param_groups]
        wanted = (self._model.version, self._state.version, stateful)
        if self._planned_for == wanted:
            return
        keys = [
            self._key(index, stateful[place.piece.group])
            for index, place in enumerate(self._model.places)
        ]
        self._launches = [self._launch(run) for run in self._model.runs(keys)]
        aging = [k for k, key in enumerate(keys) if key not in (None, _STATELESS)]
        self._aging = np.array(aging, np.intp)
        self._planned_for = wanted

    def _key(self, place: int, stateful: bool) -> int | None:
        if not self._model.active[place]:
            return None
        return self._rule.phase(self._age(place)) if stateful else _STATELESS

    def _age(self, place: int) -> int:
        return int(self._state.ages[place])

    def _launch(self, run: Run) -> _Launch:
        where = (run.buffer, run.start, run.stop)
        gradient = self._model.buffers[run.buffer].gradient
        assert gradient is not None
        state = () if run.key == _STATELESS else self._state.arrays(*where)
        return _Launch(run, gradient[run.start : run.stop], state)

    def _update(self, launch: _Launch, zero_gradient: bool) -> Update:
        run, gradient, state = launch
        group = self._optimizer.param_groups[run.group]
        hyper = self._rule.hyper(group, self._age(run.pieces[0]), zero_gradient)
        return Update(run.buffer, run.start, run.stop, gradient, state, hyper)

    def _count(self) -> None:
        newborn = self._aging[self._state.ages[self._aging] == 0]
        self._state.ages[self._aging] += 1
        if newborn.size:
            self._state.expose(newborn.tolist())
        # What lr_scheduler.step() looks at before it warns about the order of calls.
        self._optimizer._opt_called = True  # type: ignore[attr-defined]


class GenericOptimizer:
    """Any torch optimizer by its own `step()`, its update applied to x̃ too.

    Args:
        optimizer: anything whose `step()` needs no closure and takes dense gradients.
        model: where its parameters live.
    """

    def __init__(self, optimizer: Optimizer, model: FlatModel) -> None:
        _check_closure(optimizer)
        self._optimizer = optimizer
        self._model = model
        self._sizes = _group_sizes(optimizer)
        self._scratch: tuple[Tensor, ...] = ()

    def state(self) -> dict[str, Any]:
        """The optimizer's own; its arrays are live."""
        state: dict[str, Any] = arrays_of(self._optimizer.state_dict())
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._optimizer.load_state_dict(tensors_of(state))

    def step(self, x_tilde: Sequence[Array | None]) -> None:
        """Make one step with the gradients in the buffers.

        Args:
            x_tilde: one array for each buffer, at the same time as x; None without x̃.
        """
        _check_groups(self._optimizer, self._sizes)
        pairs = [
            (x, as_tensor(tilde), scratch.copy_(x))
            for x, tilde, scratch in zip(
                self._model.values, x_tilde, self._scratches(x_tilde), strict=True
            )
            if tilde is not None
        ]
        with self._model.one_gradient_each():
            self._optimizer.step()
        self._model.check_views()
        for x, tilde, before in pairs:
            tilde.add_(torch.sub(x, before, out=before))

    def _scratches(self, x_tilde: Sequence[Array | None]) -> tuple[Tensor, ...]:
        """Room for x as it was, in the precision of x̃; empty where there is no x̃."""
        if not self._scratch:
            self._scratch = tuple(
                torch.empty(
                    0 if t is None else x.numel(), dtype=wide(x.dtype), device=x.device
                )
                for x, t in zip(self._model.values, x_tilde, strict=True)
            )
        return self._scratch


def _group_sizes(optimizer: Optimizer) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]


def _check_groups(optimizer: Optimizer, sizes: list[int]) -> None:
    if _group_sizes(optimizer) != sizes:
        raise ConfigError(
            f"an optimizer must keep its groups, of {sizes} parameters, while it is "
            f"used, got {_group_sizes(optimizer)}; add groups before the worker is made"
        )


def _check_closure(optimizer: Optimizer) -> None:
    kind = type(optimizer)
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"an optimizer must step without a closure, got {kind.__name__}; use one "
            "that takes one gradient per step, such as SGD or AdamW"
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ConfigError(
            "an optimizer must take dense gradients, got SparseAdam; use Adam or AdamW"
        )
