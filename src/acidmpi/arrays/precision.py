"""Numbers in the precision of x and in that of x̃."""

from typing import Any

import numpy as np

from acidmpi.arrays import bfloat16
from acidmpi.arrays.flat import Array, wide_dtype


def widen(x: Array) -> Array:
    """A copy in the precision of x̃: float32 for 16-bit parameters, else their own."""
    return bfloat16.decode(x) if x.dtype == np.uint16 else x.astype(wide_dtype(x.dtype))


def narrow(x: Array, dtype: np.dtype[Any]) -> Array:
    """Back to the precision of x, to nearest; the inverse of `widen` on its results."""
    return bfloat16.encode(x) if dtype == np.uint16 else x.astype(dtype)
