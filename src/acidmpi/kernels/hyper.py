"""Hyper-parameters of one launch of `apply_gradient`: which rule, with which numbers.

The rules are those of `torch.optim.SGD`, `Adam` and `AdamW`, operation by operation.
"""

from typing import NamedTuple


class SGD(NamedTuple):
    """Stochastic gradient descent; the state is `(momentum,)`, or `()` without it."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    first: bool = False
    """First step of this momentum: the gradient replaces whatever the buffer holds."""

    zero_gradient: bool = False
    """Set the gradient to zero in the same pass."""


class Adam(NamedTuple):
    """Adam, or AdamW if `decoupled`; the state is `(first, second)`, the moments."""

    lr: float
    beta_1: float
    beta_2: float
    eps: float
    weight_decay: float
    decoupled: bool
    step: int
    """How many steps these moments have seen, this one included."""

    maximize: bool = False
    zero_gradient: bool = False

    @property
    def step_size(self) -> float:
        """Rate corrected for the bias of the first moment."""
        return float(self.lr / (1.0 - self.beta_1**self.step))

    @property
    def second_root(self) -> float:
        """Root of the correction for the bias of the second moment."""
        return float((1.0 - self.beta_2**self.step) ** 0.5)


class Add(NamedTuple):
    """The gradient is the update itself, to be added; there is no state."""

    zero_gradient: bool = False


Hyper = SGD | Adam | Add


def sgd_scalars(hyper: SGD) -> tuple[float, ...]:
    """What a compiled loop is given: numbers and flags, in this order."""
    return (
        hyper.lr,
        hyper.momentum,
        1 - hyper.dampening,
        hyper.weight_decay,
        hyper.nesterov,
        hyper.maximize,
        hyper.first,
        hyper.zero_gradient,
    )


def adam_scalars(hyper: Adam) -> tuple[float, ...]:
    """What a compiled loop is given: numbers and flags, in this order."""
    decoupled = hyper.decoupled
    return (
        hyper.step_size,
        hyper.beta_1,
        hyper.beta_2,
        hyper.eps,
        0.0 if decoupled else hyper.weight_decay,
        hyper.lr * hyper.weight_decay if decoupled else 0.0,
        hyper.second_root,
        hyper.maximize,
        hyper.zero_gradient,
    )
