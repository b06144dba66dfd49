"""Tensors of a CUDA device and CuPy: one memory, seen by both.

torch owns it. CuPy sees it through `__cuda_array_interface__`, which orders no streams:
that is what turns are for (`arrays.site`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acidmpi.arrays.accelerator import Accelerator
from acidmpi.arrays.cuda.choice import import_cupy, make_gpu
from acidmpi.arrays.flat import Array
from acidmpi.arrays.late import Late
from acidmpi.errors import DeviceMemoryError


def accelerator_for(device: torch.device) -> Accelerator | None:
    """The device behind its queues; its caller's stream is torch's current one.

    Raises:
        ConfigError: CuPy cannot use it.
    """
    if device.type == "cpu":
        return None
    index = torch.cuda.current_device() if device.index is None else device.index

    def current() -> int:
        return int(torch.cuda.current_stream(index).cuda_stream)

    found: Accelerator = make_gpu(index, current)
    return found


def shared_array(tensor: Tensor) -> Array:
    """A CuPy array on the memory of a CUDA tensor; bfloat16 becomes uint16.

    Raises:
        ConfigError: there is no CuPy.
    """
    import_cupy()
    from acidmpi.arrays.cuda.gpu import view_of

    # The interface knows no bfloat16: let it see whole numbers of the same width.
    tensor, index = tensor.detach(), tensor.get_device()
    if tensor.dtype is torch.bfloat16:
        return view_of(tensor.view(torch.int16), index).view(np.uint16)
    return view_of(tensor, index)


def shared_tensor(array: Array) -> Tensor:
    """A tensor on the memory of a CuPy array; uint16 becomes bfloat16."""
    device: Any = array.device
    place = f"cuda:{device.id}"  # of another GPU torch would make a copy
    if array.dtype == np.uint16:
        return torch.as_tensor(array.view(np.int16), device=place).view(torch.bfloat16)
    return torch.as_tensor(array, device=place)


class LateLoss:
    """Losses that a GPU computes, each read at the next one: see `arrays.late`.

    Args:
        device: the model's.
    """

    def __init__(self, device: torch.device) -> None:
        accelerator = accelerator_for(device)
        assert accelerator is not None
        self._late = Late(accelerator)

    def swap(self, loss: Tensor) -> float | None:
        """The loss of the call before, or None the first time; this one's is under way."""
        return self._late.swap(shared_array(loss.detach().float().reshape(1)))


def has_cuda() -> bool:
    """Whether torch can use a GPU here."""
    return torch.cuda.is_available()


@contextmanager
def fitting() -> Iterator[None]:
    """Within it a GPU whose memory torch finds full is an error that says what to do.

    Raises:
        DeviceMemoryError: the memory is full.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        # That it is full and what was asked for; torch goes on about its allocator.
        what = ". ".join(str(error).split(". ")[:2])
        raise DeviceMemoryError(
            "model, gradients and what backward keeps must fit into the GPU's memory, got "
            f"{what!r} from torch; lower --batch-size, start fewer ranks for each GPU or "
            "take --method async, which holds no second copy of the parameters"
        ) from error


def move_to(model: nn.Module, index: int) -> nn.Module:
    """The model on a GPU, which is torch's current device from here on."""
    torch.cuda.set_device(index)
    with fitting():
        return model.to(f"cuda:{index}")
