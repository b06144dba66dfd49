"""Which device a training run takes, and what it says where it cannot."""

import pytest

from acidmpi.config.train import TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.train import devices


@pytest.fixture(name="gpus", autouse=True)
def two_gpus(monkeypatch):
    def choose(asked, local_rank):
        return None if asked == "cpu" else local_rank % 2

    monkeypatch.setattr(devices, "choose_device", choose)
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: True)


def choose(has_model=True, **options):
    return devices.choose(TrainConfig(**options), 3, has_model=has_model)


def test_methods_whose_ranks_average_in_pairs_take_a_gpu():
    assert choose() == 1
    assert choose(device="cuda", transport="staged") == 1
    assert choose(device="cpu") is None


def test_what_cannot_use_a_gpu_is_left_on_the_cpu_by_auto():
    assert choose(has_model=False) is None


@pytest.mark.parametrize("method", ["allreduce", "localsgd", "gossip"])
def test_ranks_in_step_take_a_gpu_and_send_by_way_of_host_memory(method):
    assert choose(method=method) == 1
    assert choose(method=method, device="cuda", transport="staged") == 1


def test_a_torch_without_cuda_is_told(monkeypatch):
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: False)
    assert choose() is None
    with pytest.raises(ConfigError, match="install torch from its CUDA index"):
        choose(device="cuda")


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"method": "allreduce", "transport": "device"}, "by way of host memory"),
        ({"method": "gossip", "transport": "device"}, "by way of host memory"),
        ({"device": "cuda", "has_model": False}, "leave it out"),
        ({"device": "cpu", "transport": "staged"}, "or --device cuda"),
        ({"device": "cuda", "transport": "host"}, "or --device cpu"),
    ],
)
def test_what_does_not_go_together_is_told_with_its_cure(options, cure):
    with pytest.raises(ConfigError, match=cure):
        choose(**options)
