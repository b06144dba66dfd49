"""Which module's functions an array takes: NumPy's, or those of the array's own."""

import sys
from typing import Any

import numpy as np


def namespace_of(array: Any) -> Any:
    """The module that `array`'s type comes from, which must work like NumPy.

    It is looked up among the modules that are loaded: whoever made the array has
    imported it, so nothing is imported here.
    """
    if isinstance(array, np.ndarray):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]
