"""An array takes the functions of the module that it comes from."""

import sys
from types import ModuleType

import numpy as np

from acidmpi.arrays.namespace import namespace_of


def test_numpy_and_its_subclasses_take_numpy():
    assert namespace_of(np.zeros(3)) is np
    assert namespace_of(np.zeros(3).view(type("Mine", (np.ndarray,), {}))) is np


def test_others_take_the_module_that_was_loaded_with_them(monkeypatch):
    module = ModuleType("planted_arrays")
    monkeypatch.setitem(sys.modules, "planted_arrays", module)
    kind = type("ndarray", (), {"__module__": "planted_arrays.core"})
    assert namespace_of(kind()) is module
