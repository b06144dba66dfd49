"""What becomes of a gradient that is not finite: an error, or an update left out.

In host memory, and before an optimizer's own `step()`, it is known before the event. Where
fused kernels work on a device it is decided there and learnt later (`worker.verdicts`):
the event counts, the device leaves the gradient out by itself, and the error or the count
follows `LATE` events later at the latest, or when the worker is closed.
"""

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, cast

from acidmpi.arrays.flat import merge
from acidmpi.arrays.torch import FlatModel
from acidmpi.errors import AcidError, NonFiniteError
from acidmpi.kernels.protocol import GuardedKernels
from acidmpi.worker.engine import Engine
from acidmpi.worker.torch.optimizers import FusedOptimizer
from acidmpi.worker.verdicts import Span, Verdict, Verdicts

Event = Callable[[], None]


class Finiteness(Protocol):
    """Looks at gradients, and does what was chosen about those that are not finite."""

    skipped: int
    """Gradients that were not applied, as far as is known."""

    def look(self) -> Any:
        """Begin with a step: the first look at its gradients."""
        ...

    def event(self, zero_grad: bool) -> Event | None:
        """The gradient event of this step; None if the gradient is to be left out.

        Raises:
            NonFiniteError: this gradient, or an earlier one, is not finite.
        """
        ...

    def settle(self) -> AcidError | None:
        """The last step was made: what is still to be raised, if anything."""
        ...


def make_finiteness(
    model: FlatModel,
    fused: FusedOptimizer | None,
    engine: Engine,
    choice: str,
    event: Callable[[bool], Event],
) -> Finiteness:
    """What fits the memory and the optimizer.

    Args:
        model: where gradients live.
        fused: the optimizer, or None for one with a `step()` of its own.
        engine: makes the events.
        choice: `raise` or `skip`.
        event: makes an event that is applied without another look; for the host.
    """
    if model.accelerator is None or fused is None:
        return PromptFiniteness(model, engine, choice, event)
    return LateFiniteness(model, fused, engine, choice)


class PromptFiniteness:
    """Knows before the event, and waits for a device to know; see `make_finiteness`."""

    def __init__(
        self,
        model: FlatModel,
        engine: Engine,
        choice: str,
        event: Callable[[bool], Event],
    ) -> None:
        self._model, self._engine = model, engine
        self._choice, self._event = choice, event
        self.skipped = 0

    def look(self) -> bool:
        """See `Finiteness`."""
        return self._model.gradients_finite()

    def event(self, zero_grad: bool) -> Event | None:
        """See `Finiteness`; an error comes before the event, which does not count."""
        if self.look():
            return self._event(zero_grad)
        if self._choice == "raise":
            name = self._model.first_nonfinite()
            raise _error(name, self._engine.next_gradient(), self._engine.rank)
        self.skipped += 1
        return None

    def settle(self) -> AcidError | None:
        """Nothing is left."""
        return None


class _About(NamedTuple):
    """What is kept of a gradient event until its verdict comes."""

    gradient: int
    """Its number, from 1."""

    counted: Any
    """For `FusedOptimizer.uncount`."""


class LateFiniteness:
    """Never waits for the device, and knows later; see `make_finiteness`."""

    def __init__(
        self, model: FlatModel, fused: FusedOptimizer, engine: Engine, choice: str
    ) -> None:
        assert model.accelerator is not None
        self._model, self._fused, self._engine = model, fused, engine
        self._choice = choice
        self._state = engine.parts.state
        kernels = cast(GuardedKernels, self._state.kernels)
        self._verdicts = Verdicts(model.accelerator, kernels)
        sizes = [x.numel() for x in model.values]
        self._offsets = list(accumulate(sizes, initial=0))
        self._spans: tuple[int, list[Span]] = (-1, [])
        self.skipped = 0

    def look(self) -> list[Span]:
        """See `Finiteness`; all gradients there are, in as few pieces as they are in."""
        if self._spans[0] != self._model.version:
            self._spans = (self._model.version, self._find_spans())
        return self._spans[1]

    def event(self, zero_grad: bool) -> Event:
        """See `Finiteness`; an error is an earlier gradient's, this one is not counted."""
        error = self._hear(self._verdicts.heard())
        if error is not None:
            raise error
        spans = self.look()
        updates = self._fused.updates(zero_grad)
        about = _About(self._engine.next_gradient(), self._fused.counted())
        guard = partial(self._verdicts.apply, spans, about)
        return lambda: self._state.apply_gradient(updates, guard)

    def settle(self) -> AcidError | None:
        """See `Finiteness`; waits until the device has made the last step."""
        try:
            return self._hear(self._verdicts.rest())
        except AcidError as error:
            return error

    def _hear(self, verdicts: list[Verdict]) -> NonFiniteError | None:
        """Do what follows from them; the error of the first that there is one for."""
        bad = [(v.about, v.position) for v in verdicts if v.position is not None]
        for about, _ in bad:
            self._fused.uncount(about.counted)
        if self._choice == "skip":
            self.skipped += len(bad)
        elif bad:
            about, position = bad[0]
            name = self._name_at(position)
            return _error(name, about.gradient, self._engine.rank)
        return None

    def _find_spans(self) -> list[Span]:
        model = self._model
        pieces = (place.piece._replace(group=0) for place in model.places)
        keys = (True if active else None for active in model.active)
        spans = []
        for buffer, _, start, stop, *_ in merge(pieces, keys):
            gradient = model.buffers[buffer].gradient
            assert gradient is not None
            spans.append(Span(gradient[start:stop], self._offsets[buffer] + start))
        return spans

    def _name_at(self, position: int) -> str:
        for place in self._model.places:
            buffer, _, start, stop = place.piece
            if start <= position - self._offsets[buffer] < stop:
                return place.name
        raise AssertionError(f"no parameter is at {position}")


def _error(name: str | None, gradient: int, rank: int) -> NonFiniteError:
    return NonFiniteError(
        f"the gradient of {name!r} is not finite in gradient {gradient} of rank {rank}; "
        "lower the learning rate, clip gradients, or use nonfinite='skip'"
    )
