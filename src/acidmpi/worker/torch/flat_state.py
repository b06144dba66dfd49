"""The state of a torch optimizer in flat buffers, shown to torch in its own format."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from acidmpi.arrays.accelerator import store
from acidmpi.arrays.flat import Array
from acidmpi.arrays.torch.model import FlatModel
from acidmpi.arrays.torch.views import Kept, check_kept, keep, view_like, wide
from acidmpi.worker.torch.rules import Rule

States = Mapping[Tensor, Mapping[str, Any]]


class FlatState:
    """Momentum or moments of a model, and the age in steps of each of its places.

    Whatever stands in `optimizer.state` at the start, or is put there later as a whole
    (`load_state_dict`), is copied into the buffers and replaced by views of them.

    Args:
        optimizer: whose `state` is kept up to date.
        model: which parameters there are.
        rule: which tensors this kind of optimizer keeps.
    """

    def __init__(self, optimizer: Optimizer, model: FlatModel, rule: Rule) -> None:
        self._optimizer = optimizer
        self._model = model
        self._rule = rule
        self._flats: tuple[tuple[Kept, ...], ...] = ()
        # The type torch would give `step`.
        precise = torch.get_default_dtype() is torch.float64
        dtype = torch.float64 if precise else torch.float32
        self._kept = [keep(torch.zeros(len(model.places), dtype=dtype, device="cpu"))]
        self._steps, self.ages, _ = self._kept[0]
        """Steps that each place has seen; to be counted up by the caller."""
        self.version = 0
        """Grows whenever ages change in another way than by counting."""
        self.origin = object()
        """Another one whenever ages were set from outside."""
        self._incoming: Mapping[str, Any] = {}
        self._adopt({})
        self._hooks = (
            optimizer.register_load_state_dict_pre_hook(self._before_load),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        )

    def close(self) -> None:
        """Stop watching `load_state_dict`; the state stays where it is.

        But for 16-bit parameters: torch's own steps want state of their type.
        """
        for hook in self._hooks:
            hook.remove()
        for place in self._model.places:
            for owner in place.owners:
                state = self._optimizer.state.get(owner, {})
                for name in self._rule.arrays:
                    if isinstance(state.get(name), Tensor):
                        state[name] = state[name].to(owner.dtype)

    def arrays(self, buffer: int, start: int, stop: int) -> tuple[Array, ...]:
        """The state of a part of a buffer."""
        return tuple(flat.array[start:stop] for flat in self._allocated()[buffer])

    def state(self) -> dict[str, Any]:
        """The flat tensors as arrays, live; and a copy of the ages."""
        flats = [[flat.array for flat in held] for held in self._flats]
        return {"flats": flats, "ages": self.ages.astype(np.int64)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state["flats"]:
            for mine, saved in zip(self._allocated(), state["flats"], strict=True):
                for flat, array in zip(mine, saved, strict=True):
                    store(flat.array, array)
        self.ages[...] = state["ages"]
        self.origin = object()
        self.expose(np.flatnonzero(self.ages).tolist())

    def refresh(self) -> None:
        """Take over `optimizer.state` if someone has replaced, emptied or filled it.

        Raises:
            ConfigError: torch has moved the buffers, see `arrays.torch.views.Kept`.
        """
        check_kept(self._kept)
        state = self._optimizer.state
        if state is not self._seen or len(state) != self._entries:
            self._adopt({})

    def uncount(self, places: Array, origin: object) -> None:
        """A step that these places were counted for has not been made after all.

        Args:
            places: their indices.
            origin: as it was at that step; if ages were set since then, they are right.
        """
        if origin is self.origin:
            self.ages[places] -= 1
            self.version += 1

    def expose(self, places: Iterable[int]) -> None:
        """Show the state of `places` in `optimizer.state`."""
        for index in places:
            self._expose(index)
        self._mark_seen()

    def _allocated(self) -> tuple[tuple[Kept, ...], ...]:
        # Plain SGD never gets here and needs no memory.
        if not self._flats:
            self._flats = tuple(
                tuple(
                    keep(torch.zeros_like(x, dtype=wide(x.dtype)))
                    for _ in self._rule.arrays
                )
                for x in self._model.values
            )
            self._kept += [flat for held in self._flats for flat in held]
        return self._flats

    def _expose(self, index: int) -> None:
        place = self._model.places[index]
        for owner in place.owners:
            state = self._optimizer.state[owner]
            if self._rule.counts:
                state["step"] = self._steps[index]
            for name, view in self._views(index, owner).items():
                state[name] = view

    def _views(self, index: int, owner: Tensor) -> dict[str, Tensor]:
        piece = self._model.places[index].piece
        flats = self._allocated()[piece.buffer]
        return {
            name: view_like(flat.tensor, owner, piece.start)
            for name, flat in zip(self._rule.arrays, flats, strict=True)
        }

    def _mark_seen(self) -> None:
        self._seen = self._optimizer.state
        self._entries = len(self._seen)
        self.version += 1

    def _adopt(self, unrounded: States) -> None:
        self.origin = object()
        for index, place in enumerate(self._model.places):
            held = [p for p in place.owners if self._is_complete(p)]
            if held:
                self._take(index, held[0], unrounded.get(held[0], {}))
                self._expose(index)
            else:
                self._forget(index)
        self._mark_seen()

    def _is_complete(self, parameter: Tensor) -> bool:
        state = self._optimizer.state.get(parameter, {})
        return all(state.get(name) is not None for name in self._rule.arrays)

    def _take(self, index: int, owner: Tensor, unrounded: Mapping[str, Any]) -> None:
        state = self._optimizer.state[owner]
        self.ages[index] = float(state["step"]) if self._rule.counts else 1
        for name, view in self._views(index, owner).items():
            view.copy_(_best(state[name], unrounded.get(name)))

    def _forget(self, index: int) -> None:
        self.ages[index] = 0
        if self._flats:
            buffer, _, start, stop = self._model.places[index].piece
            for flat in self._flats[buffer]:
                flat.tensor[start:stop].zero_()

    def _before_load(self, _: Optimizer, state_dict: dict[str, Any]) -> None:
        self._incoming = state_dict

    def _after_load(self, optimizer: Optimizer) -> None:
        saved, self._incoming = self._incoming, {}
        unrounded = {
            parameter: saved["state"][key]
            for group, old in zip(
                optimizer.param_groups, saved["param_groups"], strict=True
            )
            for parameter, key in zip(group["params"], old["params"], strict=True)
            if key in saved["state"]
        }
        self._adopt(unrounded)


def _best(loaded: Tensor, unrounded: object) -> Tensor:
    """`load_state_dict` rounds state to the type of a 16-bit parameter; undo that."""
    if isinstance(unrounded, Tensor) and torch.equal(unrounded.to(loaded), loaded):
        return unrounded
    return loaded
