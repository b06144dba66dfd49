"""State dicts of torch, with arrays in place of tensors: what checkpoints are made of."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from acidmpi.arrays.torch.views import as_array, as_tensor


def arrays_of(value: Any) -> Any:
    """`value` with NumPy's view of each tensor in it; bfloat16 becomes uint16."""
    if isinstance(value, Tensor):
        return as_array(value.detach().cpu())
    return _map(arrays_of, value)


def tensors_of(value: Any) -> Any:
    """The inverse of `arrays_of`: tensors in place of arrays, in the same memory."""
    if isinstance(value, np.ndarray):
        return as_tensor(value if value.flags.writeable else value.copy())
    return _map(tensors_of, value)


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [change(item) for item in value]
    return value
