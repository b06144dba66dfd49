"""Views of flat tensors: how parameters and gradients get into a buffer."""

import math
from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from acidmpi.arrays.accelerator import is_on_device
from acidmpi.arrays.flat import Array, View
from acidmpi.arrays.torch.devices import shared_array, shared_tensor
from acidmpi.arrays.torch.layout import Place, dense_strides
from acidmpi.errors import ConfigError


def as_array(flat: Tensor) -> Array:
    """The same memory for NumPy, or for CuPy, which know bfloat16 as uint16."""
    if flat.is_cuda:
        return shared_array(flat)
    if flat.dtype is torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    array: Array = flat.numpy()
    return array


def as_tensor(array: Array) -> Tensor:
    """The same memory for torch, which knows uint16 as bfloat16."""
    if is_on_device(array):
        return shared_tensor(array)
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


class Kept(NamedTuple):
    """Memory as a tensor, and as an array that keeps it whatever becomes of the tensor.

    torch moves a tensor into other memory, and frees the old one, when it is shared with
    another process: `share_memory()`, a queue of `torch.multiprocessing`.
    """

    tensor: Tensor
    array: Array
    pointer: int
    """Where the tensor was."""


def keep(flat: Tensor) -> Kept:
    """The memory of a new tensor that nobody else has."""
    array = as_array(flat)
    tensor = flat if flat.is_cuda else as_tensor(array)
    return Kept(tensor, array, tensor.data_ptr())


def check_kept(memory: Iterable[Kept]) -> None:
    """Raise `ConfigError` if torch has moved a tensor."""
    if any(kept.tensor.data_ptr() != kept.pointer for kept in memory):
        raise ConfigError(
            "a model, its gradients and its optimizer must stay where they are while "
            "they train, but were moved because they were shared with another process; "
            "send clones of their tensors, such as copy.deepcopy(model.state_dict())"
        )


def view_like(flat: Tensor, parameter: Tensor, start: int) -> Tensor:
    """A view of `flat` at `start` with the shape and strides of `parameter`."""
    return flat.as_strided(parameter.shape, parameter.stride(), start)


class Resident(NamedTuple):
    """How a parameter looked when it was moved in."""

    parameter: Tensor
    name: str
    pointer: int
    strides: tuple[int, ...]


def move_in(place: Place, flat: Tensor) -> Iterator[Resident]:
    """Copy the values into `flat` and make every tenant a view of them."""
    start = place.piece.start
    first = True
    for parameter, names, _ in place.tenants:
        view = flat.as_strided(parameter.shape, dense_strides(parameter), start)
        if first:
            view.copy_(parameter.data)
            first = False
        parameter.data = view
        yield Resident(parameter, names[0], parameter.data_ptr(), parameter.stride())


def named_views(place: Place) -> Iterator[tuple[str, View]]:
    """Every name in `place`, and what it stands for."""
    _, _, start, stop = place.piece
    for parameter, names, _ in place.tenants:
        for name in names:
            yield name, View(start, stop, tuple(parameter.shape), parameter.stride())


def adopt(owners: Sequence[Tensor], views: Sequence[Tensor]) -> bool:
    """Gather the owners' gradients in their common place; False if there is none."""
    gradients = [owner.grad for owner in owners]
    if all(gradient is None for gradient in gradients):
        return False
    held = any(map(is_, gradients, views))
    for gradient, view in zip(gradients, views, strict=True):
        if gradient is None or gradient is view:
            continue
        dense = gradient.detach().to_dense()
        if held:
            view.add_(dense)
        else:
            view.copy_(dense)
        held = True
    for owner, view in zip(owners, views, strict=True):
        owner.grad = view
    return True


def wide(dtype: torch.dtype) -> torch.dtype:
    """Type of x̃ and of optimiser state beside values of `dtype`: at least float32."""
    return torch.float32 if dtype.itemsize == 2 else dtype


def is_finite(gradient: Tensor) -> bool:
    """A sum reads once and keeps every NaN and infinity, but may also overflow."""
    return math.isfinite(gradient.sum()) or bool(torch.isfinite(gradient).all())


def describe(tensor: Tensor) -> str:
    """Type, shape and strides."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype} {list(tensor.shape)} strides {list(tensor.stride())}"
