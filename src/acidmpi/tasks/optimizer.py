"""The optimizer of the image tasks: SGD, made without torch's compiler.

The public `step()` of a torch optimizer imports the compiler (seconds, and hundreds of
megabytes a rank) to tell it where not to compile. `LeanSGD` calls the function below that
wrapper, which is torch's own arithmetic. `Worker` fuses plain SGD and calls no `step()`.
"""

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from acidmpi.tasks.groups import parameter_groups
from acidmpi.tasks.lean import leave_out_compiler

_plain_step: Any = inspect.unwrap(SGD.step)


class LeanSGD(SGD):
    """`torch.optim.SGD` whose `step()` imports nothing."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """As torch's; a closure is called with gradients enabled."""
        return _plain_step(self, closure)


def clip_gradients(model: nn.Module, limit: float) -> None:
    """Scale all gradients down so that their common Euclidean norm is at most `limit`."""
    nn.utils.clip_grad_norm_(model.parameters(), limit)


def make_sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    fused: bool = False,
) -> SGD:
    """Momentum SGD for `model`, in the recipe's groups.

    Args:
        model: its trainable parameters are optimised.
        lr: learning rate.
        momentum: 0 for none.
        weight_decay: of parameters of more than one dimension.
        fused: plain SGD, for a `Worker` that puts a kernel of its own in its place.
    """
    leave_out_compiler()
    kind = SGD if fused else LeanSGD
    groups = parameter_groups(model, weight_decay)
    return kind(groups, lr=lr, momentum=momentum)
