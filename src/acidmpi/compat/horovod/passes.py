"""Counting backward passes, so that only the last one of a step is averaged."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from numbers import Integral
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from acidmpi.errors import ConfigError


class Passes:
    """Counts, for each parameter, the backward passes of a step.

    Its hook on a parameter must be registered before the optimizer's own: it decides
    whether that one averages. Called by the threads of a backward pass, for which the
    thread that trains waits.

    Args:
        per_step: passes that make one step.
        pause: `no_sync` of the optimizer.
    """

    def __init__(
        self, per_step: int, pause: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.per_step = checked(per_step)
        self._pause = pause
        self._paused = ExitStack()
        self._is_paused = False
        self._counts: dict[Tensor, int] = {}
        self._handles: list[RemovableHandle] = []

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """Count passes through those that require a gradient and are not known yet."""
        for parameter in parameters:
            if parameter.requires_grad and parameter not in self._counts:
                self._counts[parameter] = 0
                register = parameter.register_post_accumulate_grad_hook
                self._handles.append(register(self._arrived))  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """Start a step."""
        for parameter in self._counts:
            self._counts[parameter] = 0
        self._hold(self.per_step > 1)

    def close(self) -> None:
        """Take the hooks off."""
        self._hold(False)
        for handle in self._handles:
            handle.remove()

    def _arrived(self, parameter: Tensor) -> None:
        self._counts[parameter] += 1
        if self._counts[parameter] > self.per_step:
            raise ConfigError(
                f"a step is made of {self.per_step} backward passes, but a parameter got "
                f"{self._counts[parameter]} before step(); call step(), or raise "
                "backward_passes_per_step"
            )
        self._hold(self._counts[parameter] < self.per_step)

    def _hold(self, paused: bool) -> None:
        if paused and not self._is_paused:
            self._paused.enter_context(self._pause())
        elif self._is_paused and not paused:
            self._paused.close()
        self._is_paused = paused


def checked(per_step: Any) -> int:
    """`per_step`, if it is a number of passes.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(per_step, Integral) or per_step < 1:
        raise ConfigError(
            "backward_passes_per_step must be a whole number of at least 1, got "
            f"{per_step!r}; 1 averages after each backward pass"
        )
    return int(per_step)
