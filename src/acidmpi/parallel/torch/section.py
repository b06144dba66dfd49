"""Some parameters of an optimizer and the averager that serves them.

A section goes through steps: gradients are handed over one by one, from hooks in the
backward pass or all at the end, then `finish` waits for their means. Parameters that the
optimizer meets later get a section of their own, so that what a compressor remembers of
the earlier ones stays as it is.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from acidmpi.errors import ConfigError
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.torch.gradients import GradientBuffers


class Section:
    """Hands gradients over, at most once each in a step.

    Owner: the thread that trains. Hooks run in the threads of a backward pass, for which
    that thread waits; torch runs those of one device one after the other.

    Args:
        names: of the parameters.
        buffers: for their gradients.
        averager: of these.
        touched: called when a backward pass has finished a gradient; tells whether the
            gradient takes part in this step.
        overlap: whether hooks hand over at once.
    """

    def __init__(
        self,
        names: Sequence[str],
        buffers: GradientBuffers,
        averager: Averager,
        touched: Callable[[], bool],
        overlap: bool,
    ) -> None:
        self.names = tuple(names)
        self.buffers = buffers
        self.averager = averager
        self._touched = touched
        self._overlap = overlap
        self._seen = [False] * len(names)
        self._handed = [False] * len(names)
        self._held = [False] * len(names)
        self._hooks = [
            p.register_post_accumulate_grad_hook(Hook(self, k))  # type: ignore[no-untyped-call]
            for k, p in enumerate(buffers.parameters)
        ]

    @property
    def seen(self) -> bool:
        """Whether a backward pass of this step has reached a parameter."""
        return any(self._seen)

    @property
    def bad(self) -> int | None:
        """The first parameter of this step, as they came, with NaN or infinity."""
        return self.buffers.first_bad()

    @property
    def present(self) -> list[bool]:
        """Which parameters have a gradient on this rank, once all are collected."""
        return list(self._held)

    def arrived(self, index: int) -> None:
        """A backward pass has finished the gradient of a parameter."""
        takes_part = self._touched()
        if not (takes_part or self._handed[index]):
            return
        if self._seen[index]:  # what is handed over is under way: no pass may add to it
            raise ConfigError(
                "a gradient is averaged once in a step, but a second backward pass "
                f"reached {self.names[index]!r}; wrap all passes but the last in "
                "no_sync(), or call step() between them"
            )
        self._seen[index] = True
        if self._overlap:
            self._collect(index)
            self._hand_over(index)

    def collect(self) -> None:
        """Look at every gradient that was not handed over yet."""
        for index, handed in enumerate(self._handed):
            if not handed:
                self._collect(index)

    def hand_over(self) -> None:
        """Give the averager what it has not got; a missing gradient counts as zero."""
        for index in reversed(range(len(self._handed))):
            if not self._handed[index]:
                self._hand_over(index)

    def settle(self, anyone: Sequence[bool]) -> None:
        """Show every place as a gradient, but for those where no rank has one."""
        for index, used in enumerate(anyone):
            if used:
                self.buffers.show(index)
            else:
                self.buffers.parameters[index].grad = None

    def spoil(self) -> None:
        """Make the gradients infinite, for a loss scaler to find."""
        for index in range(len(self.names)):
            self.buffers.fill(index, float("inf"))
            self.buffers.show(index)

    def drop(self) -> None:
        """Leave no gradient."""
        for parameter in self.buffers.parameters:
            parameter.grad = None

    def begin(self) -> None:
        """Start a new step."""
        self.buffers.begin()
        for flags in (self._seen, self._handed, self._held):
            flags[:] = [False] * len(flags)

    def release(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()

    def _collect(self, index: int) -> None:
        self._held[index] = self.buffers.adopt(index)
        if not self._held[index]:
            self.buffers.fill(index, 0)
        else:  # a compressor that remembers would never get rid of NaN again
            self.buffers.clean(index)

    def _hand_over(self, index: int) -> None:
        self._handed[index] = True
        self.averager.ready(index, self.buffers.arrays[index])


def check_free(names: Sequence[str], parameters: Sequence[Tensor]) -> None:
    """Raise `ConfigError` if a parameter is in a section already."""
    for name, parameter in zip(names, parameters, strict=True):
        hooks = getattr(parameter, "_post_accumulate_grad_hooks", None) or {}
        if any(isinstance(hook, Hook) for hook in hooks.values()):
            raise ConfigError(
                "the gradients of a parameter can be averaged by one optimizer only, "
                f"got {name!r}, which another one holds; close() that one first"
            )


class Hook:
    """What autograd calls when the gradient of one parameter is complete."""

    def __init__(self, section: Section, index: int) -> None:
        self.section = section
        self._index = index

    def __call__(self, _: Tensor) -> None:
        """Pass it on."""
        self.section.arrived(self._index)
