"""Which parameter goes where: a plan for the buffers, made before anything is moved.

Guarantees:
- one buffer per type, in which every parameter group is contiguous;
- parameters that share memory get one place, whatever the reason they share it;
- the plan depends on names, shapes, strides, types and groups only, so that ranks with
  equal models lay them out alike.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from acidmpi.arrays.flat import Piece
from acidmpi.errors import ConfigError

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Types that can be exchanged; buffers come in this order."""

Named = Iterable[tuple[str, Tensor]]
Groups = Sequence[Sequence[Tensor]]


class Tenant(NamedTuple):
    """A parameter and the names it has in the model."""

    parameter: Tensor
    names: tuple[str, ...]
    trained: bool
    """Whether the optimizer holds it and it requires a gradient."""


class Place(NamedTuple):
    """A piece of a buffer and the parameters that live in it."""

    piece: Piece
    tenants: tuple[Tenant, ...]
    """Usually one; more if several parameters share this memory."""

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.tenants[0].names[0]

    @property
    def owners(self) -> tuple[Tensor, ...]:
        """The tenants that are trained: at least one."""
        return tuple(tenant.parameter for tenant in self.tenants if tenant.trained)


class Layout(NamedTuple):
    """The whole plan."""

    buffers: tuple[tuple[torch.dtype, int], ...]
    """Type and number of elements of each buffer."""

    device: torch.device
    """Where all of them are."""

    places: tuple[Place, ...]
    """In order of their position."""

    frozen: dict[str, Tensor]
    """Parameters that require no gradient."""

    untrained: dict[str, Tensor]
    """Parameters that require a gradient but that no optimizer group holds."""


def lay_out(named_parameters: Named, groups: Groups) -> Layout:
    """Plan the buffers for the trainable parameters of `groups`.

    Args:
        named_parameters: all parameters of the model, frozen ones too.
        groups: the parameters of each optimizer group, in the optimizer's order.
    """
    return _Planner(named_parameters, groups).layout()


def one_device(devices: Mapping[str, torch.device]) -> torch.device:
    """The device that all parameters are on.

    Args:
        devices: by name of the parameter.

    Raises:
        ConfigError: there are several.
    """
    first, *others = dict.fromkeys(devices.values())
    if others:
        name = next(n for n, device in devices.items() if device == others[0])
        raise ConfigError(
            "trainable parameters must be on one device, got "
            f"{next(iter(devices))!r} on {first} and {name!r} on {others[0]}; move the "
            "whole model by model.to(...): one rank trains on one device"
        )
    return first


def dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's own strides if its elements fill one stretch, else row by row."""
    if _is_dense(tensor):
        return tensor.stride()
    return torch.empty(tensor.shape, device="meta").stride()


def _is_dense(tensor: Tensor) -> bool:
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return tensor.numel() > 0


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tensors that are made of the very same elements."""
    if not _is_supported(tensor) or not tensor.numel():
        return (id(tensor),)
    where = (tensor.dtype, tensor.data_ptr())
    if _is_dense(tensor):
        return (*where, tensor.numel())
    return (*where, tensor.shape, tensor.stride())


class _Planner:
    def __init__(self, named_parameters: Named, groups: Groups) -> None:
        self._names: dict[Tensor, list[str]] = {}
        for name, parameter in named_parameters:
            self._names.setdefault(parameter, []).append(name)
        self._check_known(groups)
        self._group = {p: g for g, group in enumerate(groups) for p in group}
        self._trained = [p for p in self._group if p.requires_grad]
        self._check_supported()
        self._device = one_device({self._names[p][0]: p.device for p in self._trained})
        self._tenants: dict[tuple[object, ...], list[Tensor]] = {}
        for parameter in self._names:
            self._tenants.setdefault(_memory(parameter), []).append(parameter)
        self._check_disjoint()

    def layout(self) -> Layout:
        places = tuple(self._places())
        sizes = Counter[int]()
        for place in places:
            sizes[place.piece.buffer] = place.piece.stop
        placed = {tenant.parameter for place in places for tenant in place.tenants}
        left = {names[0]: p for p, names in self._names.items() if p not in placed}
        return Layout(
            tuple((dtype, sizes[k]) for k, dtype in enumerate(self._dtypes())),
            self._device,
            places,
            {name: p for name, p in left.items() if not p.requires_grad},
            {name: p for name, p in left.items() if p.requires_grad},
        )

    def _dtypes(self) -> list[torch.dtype]:
        used = {parameter.dtype for parameter in self._trained}
        return [dtype for dtype in DTYPES if dtype in used]

    def _places(self) -> Iterator[Place]:
        for buffer, dtype in enumerate(self._dtypes()):
            start = 0
            # A dict drops repetitions: a place stands where its first owner stands.
            for memory in dict.fromkeys(
                _memory(p) for p in self._trained if p.dtype is dtype
            ):
                place = self._place(self._tenants[memory], buffer, start)
                yield place
                start = place.piece.stop

    def _place(self, members: list[Tensor], buffer: int, start: int) -> Place:
        tenants = tuple(
            Tenant(p, tuple(self._names[p]), p in self._group and p.requires_grad)
            for p in members
        )
        groups = {self._group[t.parameter] for t in tenants if t.trained}
        if len(groups) > 1:
            raise ConfigError(
                "parameters that share memory must be in one optimizer group, got "
                f"{' and '.join(t.names[0] for t in tenants)} in {sorted(groups)}"
            )
        stop = start + members[0].numel()
        return Place(Piece(buffer, groups.pop(), start, stop), tenants)

    def _check_known(self, groups: Groups) -> None:
        strangers = [
            f"parameter {k} of group {g} with shape {list(parameter.shape)}"
            for g, group in enumerate(groups)
            for k, parameter in enumerate(group)
            if parameter not in self._names
        ]
        if strangers:
            raise ConfigError(
                "the optimizer must hold parameters of the model only, got also "
                f"{', '.join(strangers)}; complete the model before you build it"
            )

    def _check_supported(self) -> None:
        for parameter, names in self._names.items():
            if is_lazy(parameter):
                raise ConfigError(
                    f"every parameter needs a shape, got the lazy {names[0]!r}; run "
                    "the model on one example first"
                )
        for parameter in self._trained:
            if not _is_supported(parameter):
                kind = (parameter.dtype, parameter.layout, parameter.device)
                raise ConfigError(
                    "trainable parameters must be plain dense tensors of real numbers "
                    "of 16, 32 or 64 bits on the CPU or a CUDA GPU, got "
                    f"{self._names[parameter][0]!r} ({', '.join(map(str, kind))})"
                )
        if not self._trained:
            raise ConfigError(
                "the optimizer must hold a parameter that requires a gradient, got none"
            )

    def _check_disjoint(self) -> None:
        """Parameters that overlap in part would silently come apart in the buffers."""
        spans = sorted(
            (first.data_ptr(), first.data_ptr() + first.nbytes, self._names[first][0])
            for first, *_ in self._tenants.values()
            if _is_supported(first) and _is_dense(first)
        )
        for (_, stop, left), (start, _, right) in pairwise(spans):
            if start < stop:
                raise ConfigError(
                    "parameters must share all of their memory or none, got a partial "
                    f"overlap of {left!r} and {right!r}; make one of them a copy"
                )


def _is_supported(parameter: Tensor) -> bool:
    return (
        type(parameter.data) is Tensor
        and parameter.layout is torch.strided
        and parameter.device.type in ("cpu", "cuda")
        and parameter.dtype in DTYPES
    )
