"""bfloat16 in NumPy, which has no such type: the upper half of a float32, as uint16."""

from typing import Any

import numpy as np
import numpy.typing as npt


def decode(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The numbers that `bits` stand for, exactly."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def encode(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The nearest bfloat16 of each value, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    result = rounded.astype(np.uint16)
    not_a_number = np.isnan(bits.view(np.float32))
    if not_a_number.any():
        result[not_a_number] = (bits[not_a_number] >> 16) | 0x40
    return result.reshape(np.shape(values))  # a single number stays one
