"""Which GPU a rank takes, and what is said where it cannot have one."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support import fake_cuda

from acidmpi.arrays.cuda import choice
from acidmpi.arrays.cuda.choice import check_version, choose_device
from acidmpi.arrays.cuda.names import uuid_text
from acidmpi.errors import ConfigError


class CudaError(RuntimeError):
    pass


def fake_cupy(monkeypatch, count=2, built=13000, driver=13000):
    """A CuPy as far as choosing needs it; `count` may be an error."""

    def get_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        getDeviceCount=get_count,
        runtimeGetVersion=lambda: built,
        driverGetVersion=lambda: driver,
    )
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(choice, "import_cupy", lambda: cupy)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_ranks_of_a_machine_take_its_gpus_in_turn(monkeypatch, asked):
    fake_cupy(monkeypatch, count=2)
    assert [choose_device(asked, rank) for rank in range(5)] == [0, 1, 0, 1, 0]


def test_a_launcher_that_shows_each_rank_one_gpu_has_chosen(monkeypatch):
    fake_cupy(monkeypatch, count=1)
    assert [choose_device("auto", rank) for rank in range(3)] == [0, 0, 0]


def test_the_cpu_is_taken_without_a_look(monkeypatch):
    monkeypatch.setattr(choice, "import_cupy", lambda: 1 / 0)
    assert choose_device("cpu", 0) is None


@pytest.mark.parametrize("count", [0, CudaError("no CUDA-capable device")])
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(monkeypatch, count):
    fake_cupy(monkeypatch, count=count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert choose_device("auto", 0) is None
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES='7'; ask the batch"):
        choose_device("cuda", 0)


def test_without_cupy_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert choose_device("auto", 0) is None
    with pytest.raises(ConfigError, match=r"install acidmpi\[cuda13\]"):
        choose_device("cuda", 0)


def test_a_cupy_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "acidmpi.arrays.cuda.gpu", raising=False)
    with pytest.raises(ConfigError, match="one that fits CUDA here"):
        choose_device("cuda", 0)


def test_a_cupy_for_a_newer_cuda_than_the_driver_is_refused(monkeypatch):
    fake_cupy(monkeypatch, built=13010, driver=12080)
    with pytest.raises(ConfigError, match=r"install acidmpi\[cuda12\]"):
        check_version()
    fake_cupy(monkeypatch, built=12080, driver=13000)
    check_version()
    fake_cupy(monkeypatch, driver=0)
    with pytest.raises(ConfigError, match="got no CUDA driver"):
        check_version()


def test_a_word_that_is_no_device_is_refused():
    with pytest.raises(ConfigError, match="one of auto, cpu, cuda, got 'gpu'"):
        choose_device("gpu", 0)


def test_a_uuid_reads_as_nvidia_smi_shows_it():
    assert uuid_text(bytes(range(16))) == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


@pytest.mark.skipif(fake_cuda.COMPILER is None, reason="no C++ compiler here")
def test_a_uuid_with_a_zero_byte_is_told_whole(tmp_path):
    code = "from acidmpi.arrays.cuda.names import uuid_of as of; print(of(0), of(1))"
    variables = os.environ | fake_cuda.build(tmp_path)
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert told.stdout.split() == [fake_cuda.UUID, "None"], told.stderr
