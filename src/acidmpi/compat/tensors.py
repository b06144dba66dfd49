"""Tensors as arrays that MPI can send, and back.

A tensor that lies on a device is staged through the host's memory.
"""

import reprlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import ConfigError

Array = NDArray[Any]

_WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e4m3fnuz: torch.float32,
    torch.float8_e5m2: torch.float32,
    torch.float8_e5m2fnuz: torch.float32,
    torch.complex32: torch.complex64,
    torch.bool: torch.uint8,
}
"""What MPI cannot add, in a type that it can."""
if hasattr(torch, "float8_e8m0fnu"):  # not before torch 2.7
    _WIDE[torch.float8_e8m0fnu] = torch.float32


def check_plain(what: str, tensor: Any) -> None:
    """Raise unless `tensor` is a tensor whose values can be sent.

    Raises:
        ConfigError: it is no tensor.
        UnsupportedError: it is a sparse one, or of another kind without plain values.
    """
    if not isinstance(tensor, Tensor):
        raise ConfigError(
            f"{what} needs a torch.Tensor, got {type(tensor).__name__} "
            f"{reprlib.repr(tensor)}; pass torch.as_tensor(...) of it"
        )
    odd = tensor.is_nested or tensor.is_quantized or tensor.is_meta
    if odd or tensor.layout is not torch.strided:
        raise UnsupportedError(
            f"{what} of a tensor that is sparse, nested, quantised or without values",
            "call to_dense() or dequantize() on it first",
        )


def numbers(tensor: Tensor) -> Array:
    """A copy of the values, one-dimensional, in a type that MPI can reduce.

    Floats of 8 and 16 bits become float32 and booleans uint8.
    """
    wide = _WIDE.get(tensor.dtype, tensor.dtype)
    flat = _plain(tensor).to("cpu", wide)
    return np.array(flat.numpy())


def like(array: Array, tensor: Tensor) -> Tensor:
    """A tensor of the type, shape and device of `tensor` with values of `numbers`."""
    values = torch.from_numpy(array).reshape(tensor.shape)
    return values.to(tensor.device, tensor.dtype)


def data(tensor: Tensor) -> Array:
    """A copy of the bytes of all elements in order."""
    # contiguous() leaves a single element the stride that it has, which view() minds.
    flat = _plain(tensor).cpu().clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy()


def from_data(array: Array, tensor: Tensor, first: int | None = None) -> Tensor:
    """A tensor of the type and device of `tensor` from bytes.

    Args:
        array: what `data` gave.
        tensor: whose type, device and shape it has.
        first: its first dimension, if it is not that of `tensor`.
    """
    shape = tensor.shape if first is None else (first, *tensor.shape[1:])
    if array.size == 0:
        return tensor.new_empty(shape)
    flat = torch.from_numpy(array).view(tensor.dtype)
    return flat.reshape(shape).to(tensor.device)


def row_bytes(tensor: Tensor) -> int:
    """Bytes of one entry of the first dimension."""
    return tensor.element_size() * tensor.shape[1:].numel()


def _plain(tensor: Tensor) -> Tensor:
    """All elements in order; what `conj()` or `imag` only noted is calculated."""
    return tensor.detach().resolve_conj().resolve_neg().reshape(-1)
