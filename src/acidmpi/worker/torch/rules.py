"""How torch's optimizers map onto fused kernels: options in, hyper-parameters out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.optim import Optimizer

from acidmpi.kernels.hyper import SGD, Adam, Hyper

Group = Mapping[str, Any]
"""One of `optimizer.param_groups`; read anew at each step, so schedulers work."""


class Rule(Protocol):
    """What fusing needs to know about one kind of optimizer."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the tensors that torch keeps for each parameter."""
        ...

    @property
    def counts(self) -> bool:
        """Whether torch also keeps the number of steps, as `step`."""
        ...

    def supports(self, group: Group) -> bool:
        """Whether the kernels know all options of this group."""
        ...

    def stateful(self, group: Group) -> bool:
        """Whether the group uses its state now."""
        ...

    def phase(self, age: int) -> int:
        """Equal for ages, in steps, that one launch can serve together."""
        ...

    def hyper(self, group: Group, age: int, zero_gradient: bool) -> Hyper:
        """Hyper-parameters of the step that follows `age` others."""
        ...


@dataclass(frozen=True)
class SGDRule:
    """`torch.optim.SGD`: the first step of a momentum buffer is special."""

    arrays: tuple[str, ...] = ("momentum_buffer",)
    counts: bool = False

    def supports(self, group: Group) -> bool:
        """All but differentiable steps."""
        return not group.get("differentiable")

    def stateful(self, group: Group) -> bool:
        """Only with momentum."""
        return bool(group["momentum"] != 0)

    def phase(self, age: int) -> int:
        """First step or a later one."""
        return min(age, 1)

    def hyper(self, group: Group, age: int, zero_gradient: bool) -> Hyper:
        """The numbers in `group`; tensors are read."""
        return SGD(
            lr=float(group["lr"]),
            momentum=float(group["momentum"]),
            dampening=float(group["dampening"]),
            weight_decay=float(group["weight_decay"]),
            nesterov=bool(group["nesterov"]),
            maximize=bool(group["maximize"]),
            first=age == 0,
            zero_gradient=zero_gradient,
        )


@dataclass(frozen=True)
class AdamRule:
    """`torch.optim.Adam` and `AdamW`: the correction for bias depends on the age."""

    decoupled: bool
    """Weight decay as in AdamW, for versions of torch whose groups do not tell."""

    arrays: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    counts: bool = True

    def supports(self, group: Group) -> bool:
        """All but AMSGrad, capturable and differentiable steps."""
        return not any(
            group.get(name) for name in ("amsgrad", "capturable", "differentiable")
        )

    def stateful(self, group: Group) -> bool:
        """Always."""
        return True

    def phase(self, age: int) -> int:
        """Every age for itself."""
        return age

    def hyper(self, group: Group, age: int, zero_gradient: bool) -> Hyper:
        """The numbers in `group`; tensors are read."""
        beta_1, beta_2 = group["betas"]
        return Adam(
            lr=float(group["lr"]),
            beta_1=float(beta_1),
            beta_2=float(beta_2),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            decoupled=bool(group.get("decoupled_weight_decay", self.decoupled)),
            step=age + 1,
            maximize=bool(group["maximize"]),
            zero_gradient=zero_gradient,
        )


_RULES: dict[type[Optimizer], Rule] = {
    torch.optim.SGD: SGDRule(),
    torch.optim.Adam: AdamRule(decoupled=False),
    torch.optim.AdamW: AdamRule(decoupled=True),
}


def rule_of(optimizer: Optimizer) -> Rule | None:
    """The rule for exactly this class with these options; None if there is none.

    A subclass, a step hook or a replaced `step` may do anything: they are not fused.
    """
    rule = _RULES.get(type(optimizer))
    if rule is None or has_step_hooks(optimizer) or _has_own_step(optimizer):
        return None
    return rule if all(map(rule.supports, optimizer.param_groups)) else None


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether someone wants to be called around `optimizer.step()`."""
    return bool(
        optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    )


def _has_own_step(optimizer: Optimizer) -> bool:
    """Whether this object's `step` was replaced, other than by a rate scheduler."""
    step = vars(optimizer).get("step")
    return step is not None and not hasattr(step, "_wrapped_by_lr_sched")
