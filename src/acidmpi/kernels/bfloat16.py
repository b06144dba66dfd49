"""bfloat16 in NumPy, which has no such type: the upper half of a float32, as uint16."""

from typing import Any

import numpy as np
import numpy.typing as npt


def decode(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The numbers that `bits` stand for, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def encode(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The nearest bfloat16 of each value, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, quiet_nan, rounded).astype(np.uint16)
