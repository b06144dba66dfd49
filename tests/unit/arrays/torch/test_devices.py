"""A model is on one device, and its memory is shared with CuPy there."""

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from acidmpi.arrays.cuda import choice
from acidmpi.arrays.torch.devices import shared_array, shared_tensor
from acidmpi.arrays.torch.layout import one_device
from acidmpi.errors import ConfigError


def test_a_model_on_one_device_is_there():
    device = torch.device("cuda", 1)
    assert one_device({"a": device, "b": device}) == device


def test_a_model_spread_over_two_devices_is_told():
    spread = {"a": torch.device("cuda", 0), "b": torch.device("cuda", 1)}
    with pytest.raises(ConfigError, match=r"'a' on cuda:0 and 'b' on cuda:1; move"):
        one_device(spread)


class TwoGpus:
    """As much of CuPy as tells which GPU is the current one."""

    def __init__(self):
        self.current = 0
        self.cuda = SimpleNamespace(Device=self._on)

    @contextmanager
    def _on(self, index):
        before, self.current = self.current, index
        try:
            yield
        finally:
            self.current = before

    def asarray(self, owner):
        return SimpleNamespace(
            shared=owner.get_device() == self.current, view=lambda dtype: dtype
        )


@pytest.fixture
def cupy(monkeypatch):
    cupy = TwoGpus()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())
    name = "acidmpi.arrays.cuda.gpu"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield cupy
    sys.modules.pop(name, None)


@pytest.mark.parametrize("index", [0, 1])
def test_a_tensor_is_seen_where_it_is_and_not_copied(cupy, monkeypatch, index):
    """CuPy copies what is on another GPU than the current one."""
    monkeypatch.setattr(torch.Tensor, "get_device", lambda _: index)
    assert shared_array(torch.ones(2)).shared
    assert cupy.current == 0


class OnSecond(np.ndarray):
    """An array that says it is on the second GPU."""

    device = SimpleNamespace(id=1)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_an_array_is_a_tensor_on_its_own_gpu(monkeypatch, dtype):
    """`cuda` alone is torch's current GPU, to which it would copy."""
    places = []

    def as_tensor(array, device):
        places.append(device)
        return torch.from_numpy(array)

    monkeypatch.setattr(torch, "as_tensor", as_tensor)
    array = np.zeros(2, dtype).view(OnSecond)
    assert shared_tensor(array).shape == (2,)
    assert places == ["cuda:1"]
