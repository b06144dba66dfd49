"""A torch model whose parameters and gradients are views of flat buffers.

Guarantees:
- `Parameter` objects stay the same, so optimizers, hooks and modules keep working;
- NumPy and torch see the same memory: nothing is copied after construction, unless a
  backward pass makes gradients of its own;
- a parameter without a gradient is not updated, as in torch.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter, is_not

import numpy as np
import torch
from torch import Tensor

from acidmpi.arrays.flat import Array, FlatBuffer, Run, merge
from acidmpi.arrays.torch.devices import accelerator_for
from acidmpi.arrays.torch.layout import Groups, Named, lay_out
from acidmpi.arrays.torch.views import (
    Resident,
    adopt,
    as_tensor,
    check_kept,
    describe,
    is_finite,
    keep,
    move_in,
    named_views,
    view_like,
    wide,
)
from acidmpi.errors import ConfigError

_gradient_of = attrgetter("grad")


class FlatModel:
    """Move a model's trainable parameters into one buffer per type.

    Parameters that share memory (tied weights) share one place, where their gradients
    add up. Frozen parameters, and those that no group holds, stay where they are: they
    never change, so ranks need them once at most.

    Args:
        named_parameters: all parameters of the model, frozen ones too.
        groups: the parameters of each optimizer group, in the optimizer's order.
    """

    def __init__(self, named_parameters: Named, groups: Groups) -> None:
        named = tuple(named_parameters)
        layout = lay_out(named, groups)
        self.places = layout.places
        """Every parameter's place, in order of position."""
        self.frozen = layout.frozen
        """Parameters that require no gradient, by name; not exchanged."""
        self.untrained = layout.untrained
        """Parameters that require a gradient but are in no group; not exchanged."""
        self._memory = tuple(
            (keep(flat), keep(torch.zeros_like(flat)))
            for flat in (
                torch.empty(size, dtype=dtype, device=layout.device)
                for dtype, size in layout.buffers
            )
        )
        self.values = tuple(values.tensor for values, _ in self._memory)
        """The buffers as tensors."""
        self._kept = [kept for pair in self._memory for kept in pair]
        self.accelerator = accelerator_for(layout.device)
        """The device that holds them, or None for host memory."""
        self.gradients = tuple(gradients.tensor for _, gradients in self._memory)
        """Their gradients as tensors."""
        self._residents = [
            resident
            for place in self.places
            for resident in move_in(place, self.values[place.piece.buffer])
        ]
        self._names = {r.parameter: r.name for r in self._residents}
        self._names |= {p: n for n, p in (self.frozen | self.untrained).items()}
        self.buffers = tuple(self._describe(k) for k in range(len(self.values)))
        """The buffers as arrays of NumPy or CuPy, with their groups and names."""
        self.active = [False] * len(self.places)
        """For each place, whether it has a gradient."""
        self.active_segments: tuple[Run, ...] = ()
        """Places with a gradient, neighbours of one group merged."""
        self.version = 0
        """Grows whenever `active` changes."""
        self._views = [
            [
                view_like(self.gradients[place.piece.buffer], owner, place.piece.start)
                for owner in place.owners
            ]
            for place in self.places
        ]
        self._asleep = [p for g in groups for p in g if not p.requires_grad]
        self._watched = [p for place in self.places for p in place.owners]
        self._watched += self._asleep
        self._expected: list[Tensor | None] = [None] * len(self._watched)
        self.check_views(named)
        self.collect_gradients()

    def runs(self, keys: Iterable[Hashable]) -> tuple[Run, ...]:
        """Merge neighbouring places of equal group and key; None leaves one out."""
        return merge((place.piece for place in self.places), keys)

    def collect_gradients(self) -> bool:
        """Bring gradients that a backward pass allocated into the buffers.

        Costs no more than a look at each parameter when there are none.

        Returns:
            Whether the set of parameters with a gradient has changed.

        Raises:
            ConfigError: the model has moved out of the buffers, or was shared.
        """
        check_kept(self._kept)
        if not any(map(is_not, map(_gradient_of, self._watched), self._expected)):
            return False
        return self._adopt_gradients()

    def zero_gradients(self) -> None:
        """Set every gradient to zero; a parameter that has none still has none."""
        self.collect_gradients()
        for gradient in self.gradients:
            gradient.zero_()

    @contextmanager
    def one_gradient_each(self) -> Iterator[None]:
        """Inside, only the first owner of a place has its gradient.

        An optimizer's own `step()` would apply the sum once for each owner.
        """
        others = [(p, p.grad) for place in self.places for p in place.owners[1:]]
        for parameter, _ in others:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in others:
                parameter.grad = gradient

    def scale_gradients(self, factor: float) -> None:
        """Multiply all gradients by `factor`."""
        for gradient in self._active_gradients():
            gradient.mul_(factor)

    def gradient_norm(self) -> float:
        """Euclidean norm of all gradients together."""
        norms = [
            torch.linalg.vector_norm(g, dtype=wide(g.dtype)).item()
            for g in self._active_gradients()
        ]
        return float(np.linalg.norm(norms)) if norms else 0.0

    def gradients_finite(self) -> bool:
        """Whether there is neither NaN nor infinity in any gradient."""
        return all(map(is_finite, self._active_gradients()))

    def first_nonfinite(self) -> str | None:
        """Name of the first parameter with a gradient that is not finite."""
        for place, views, active in zip(
            self.places, self._views, self.active, strict=True
        ):
            if active and not torch.isfinite(views[0]).all():
                return place.name
        return None

    def check_views(self, named_parameters: Named | None = None) -> None:
        """Raise `ConfigError` if the model has moved out of the buffers.

        Args:
            named_parameters: all of the model's parameters as they are now, to find
                added and replaced ones too.
        """
        for resident in self._residents:
            if not _stays(resident):
                raise ConfigError(
                    "a model must stay where it is while it is trained, but "
                    f"{resident.name!r} was moved or cast; call model.to() before that"
                )
        if named_parameters is not None:
            self._check_members(dict(named_parameters))

    def signature(self) -> dict[str, str]:
        """What ranks must agree on: a description for each name."""
        lines = {
            name: f"{describe(tenant.parameter)} at {place.piece}"
            for place in self.places
            for tenant in place.tenants
            for name in tenant.names
        }
        left = self.frozen | self.untrained
        return lines | {name: f"{describe(p)} outside" for name, p in left.items()}

    def write_to(self, arrays: Sequence[Array], named_parameters: Named) -> None:
        """Copy `arrays`, laid out like the buffers, into another model of this kind."""
        targets = dict(named_parameters)
        missing = [place.name for place in self.places if place.name not in targets]
        if missing:
            raise ConfigError(
                f"the other model must have the same parameters, got none named "
                f"{', '.join(missing)}; build it in the same way"
            )
        for buffer, array in zip(self.buffers, arrays, strict=True):
            for name in buffer.views.keys() & targets.keys():
                targets[name].data.copy_(as_tensor(buffer.named(name, array)))

    def release(self) -> None:
        """Give every parameter memory of its own again and drop its gradient.

        A parameter that has left its buffer is left alone. Afterwards this object serves
        `write_to` only.
        """
        stayed = {r.parameter for r in self._residents if _stays(r)}
        for place in self.places:
            _, _, start, stop = place.piece
            own = self.values[place.piece.buffer][start:stop].clone()
            for parameter in stayed.intersection(t.parameter for t in place.tenants):
                parameter.data = view_like(own, parameter, 0)
                parameter.grad = None

    def _describe(self, index: int) -> FlatBuffer:
        places = [place for place in self.places if place.piece.buffer == index]
        values, gradients = self._memory[index]
        return FlatBuffer(
            values.array,
            gradients.array,
            dict(view for place in places for view in named_views(place)),
        )

    def _active_gradients(self) -> Iterator[Tensor]:
        for buffer, _, start, stop, *_ in self.active_segments:
            yield self.gradients[buffer][start:stop]

    def _adopt_gradients(self) -> bool:
        try:
            active = [
                adopt(place.owners, views)
                for place, views in zip(self.places, self._views, strict=True)
            ]
        except (RuntimeError, TypeError):  # torch: a gradient of another type or device
            self.check_views()
            raise
        self._check_asleep()
        self._expected = [
            view if has_gradient else None
            for views, has_gradient in zip(self._views, active, strict=True)
            for view in views
        ] + [None] * len(self._asleep)
        if active == self.active:
            return False
        self.active = active
        self.active_segments = self.runs(True if a else None for a in active)
        self.version += 1
        return True

    def _check_asleep(self) -> None:
        for parameter in self._asleep:
            if parameter.grad is not None:
                raise ConfigError(
                    "a frozen parameter must have no gradient, but "
                    f"{self._names[parameter]!r} has one; unfreeze it before the "
                    "worker is made, or set its .grad to None"
                )

    def _check_members(self, current: dict[str, Tensor]) -> None:
        present = {parameter: name for name, parameter in current.items()}
        changed = [self._names[p] for p in self._names.keys() - present.keys()]
        changed += [present[p] for p in present.keys() - self._names.keys()]
        if changed:
            raise ConfigError(
                "a model must keep its parameters while it is trained, but these were "
                f"added, removed or replaced: {', '.join(sorted(set(changed)))}"
            )


def _stays(resident: Resident) -> bool:
    """Whether a parameter is still where it was moved to."""
    parameter, _, pointer, strides = resident
    return parameter.data_ptr() == pointer and parameter.stride() == strides
