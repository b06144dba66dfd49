"""Steps that evaluate a closure as often as the optimizer asks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from acidmpi.errors import NonFiniteError
from acidmpi.parallel.torch.synchroniser import Synchroniser

Closure = Callable[[], Any]


class Evaluation:
    """A closure whose gradients and loss are means over ranks, each time.

    All ranks must see one loss, or a line search would take several ways.

    Args:
        closure: clears gradients, computes a loss and its gradients, returns the loss.
        synchroniser: of the optimizer.
        synchronise: averages the gradients, unless that was done.
    """

    def __init__(
        self,
        closure: Closure,
        synchroniser: Synchroniser,
        synchronise: Callable[[], None],
    ) -> None:
        self._closure = closure
        self._synchroniser = synchroniser
        self._synchronise = synchronise
        self._count = 0

    def step(self, step: Callable[[Closure], Any]) -> Any:
        """Take a step, or leave it out before it has begun.

        Raises:
            NonFiniteError: it has begun when a gradient turns out not to be finite.
        """
        try:
            return step(self)
        except _Skip:
            if self._count == 1:
                return None
            raise NonFiniteError(
                "a step can be skipped before it has begun, but evaluation "
                f"{self._count} of the closure gave a gradient that is not finite; "
                "lower the learning rate"
            ) from None

    def __call__(self) -> Any:
        """Evaluate the closure."""
        self._count += 1
        self._synchroniser.renew()
        with torch.enable_grad():
            loss = self._closure()
        self._synchronise()
        if self._synchroniser.skipping:
            raise _Skip
        return self._mean(loss)

    def _mean(self, loss: Any) -> Any:
        if isinstance(loss, Tensor):
            mean = self._synchroniser.mean(loss.item())
            return torch.full_like(loss.detach(), mean)
        return None if loss is None else self._synchroniser.mean(float(loss))


class _Skip(Exception):
    """Leaves the optimizer's `step` before it has changed anything."""
