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


def beside(array: Any, like: Any) -> Any:
    """`array` of the same kind as `like`: itself if it is, else a copy where that lies."""
    xp = namespace_of(like)
    if xp is namespace_of(array):
        return array
    return array.get() if xp is np else xp.asarray(array)


def host_copy(array: Any) -> Any:
    """A NumPy copy of `array`, wherever that lies."""
    return array.copy() if isinstance(array, np.ndarray) else array.get()
