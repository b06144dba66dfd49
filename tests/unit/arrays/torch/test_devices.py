"""A model is on one device."""

import pytest
import torch

from acidmpi.arrays.torch.layout import one_device
from acidmpi.errors import ConfigError


def test_a_model_on_one_device_is_there():
    device = torch.device("cuda", 1)
    assert one_device({"a": device, "b": device}) == device


def test_a_model_spread_over_two_devices_is_told():
    spread = {"a": torch.device("cuda", 0), "b": torch.device("cuda", 1)}
    with pytest.raises(ConfigError, match=r"'a' on cuda:0 and 'b' on cuda:1; move"):
        one_device(spread)
