"""The benchmarks of a GPU on two ranks, with a device made of host memory."""

from contextlib import contextmanager

import pytest
import torch
from mpi4py import MPI
from support.instant_device import InstantDevice
from torch import nn

from acidmpi.bench import gpu_step
from acidmpi.bench.gpu_exchange import PASSES, measure
from acidmpi.bench.gpu_options import GpuExchangeOptions, GpuStepOptions
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.transport.choice import Choice

COMM = MPI.COMM_WORLD
SIZE = COMM.size

pytestmark = pytest.mark.mpi
pair = pytest.mark.skipif(SIZE != 2, reason="an exchange is one of two ranks")

OPTIONS = GpuExchangeOptions(size=10_000, chunk_bytes=1 << 13, rounds=2)
DEVICE, STAGED = Choice("device", "bytes were right"), Choice("staged", "no")


def figures(choice, uuid):
    device = InstantDevice(uuid)
    found = measure(OPTIONS, COMM, device, load("reference"), choice)
    return [(figure.name, figure.beside, figure.at_least) for figure in found], found


@pair
def test_ranks_that_share_a_gpu_are_measured_against_its_memory():
    names, found = figures(DEVICE, "GPU-1")
    assert names == [
        ("staged", "bus, message", 0.9),
        ("bus", "", None),
        ("host message", "", None),
        ("device", "Isend, Irecv", None),
        ("device", "all bytes", 0.8),
    ]
    assert all(figure.value > 0 for figure in found)
    speeds = {figure.name: figure.value for figure in found}
    assert found[0].rival == min(speeds["bus"], speeds["host message"])
    assert PASSES == 11


@pair
def test_ranks_with_a_gpu_each_are_measured_against_bare_messages():
    names, _ = figures(DEVICE, f"GPU-{COMM.rank}")
    assert names[-1] == ("device", "Isend, Irecv", 0.9)
    assert len(names) == 4


@pair
def test_an_mpi_that_cannot_is_given_no_device_memory():
    names, _ = figures(STAGED, "GPU-1")
    assert "device" not in {name for name, _, _ in names}


@pytest.mark.skipif(SIZE == 2, reason="that is the right number")
def test_an_exchange_of_other_than_two_is_refused():
    from acidmpi.bench.gpu_exchange import run

    with pytest.raises(ConfigError, match="2 ranks, got"):
        run(OPTIONS, COMM)


class HostMachine:
    """The CPU in a GPU's place; its allocator and its waits are what a test says."""

    device = torch.device("cpu")

    def __init__(self):
        self.finished = self.forgotten = 0

    def finish(self):
        self.finished += 1

    def used_bytes(self):
        return 1000 + (self.finished - self.forgotten) * 500

    def forget(self):
        self.forgotten = self.finished

    @contextmanager
    def watched(self):
        yield ["a wait"]


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1000))


@pytest.mark.skipif(SIZE > 2, reason="more ranks add nothing but time")
def test_a_step_with_communication_is_measured_beside_one_without():
    options = GpuStepOptions(
        batch_size=2, image_size=16, steps=2, warmup=1, rounds=2, precision="float32"
    )
    step, host, waits, memory = gpu_step.measure(options, COMM, HostMachine(), small)
    assert step.value > 0
    assert step.rival > 0
    assert step.at_most == 1.03
    assert 0 < host.value < 1e6
    assert waits.value == 1
    assert waits.asked.endswith("MISSED")
    assert memory.value == 500 / 2**20
    parameters = 4 * (3 * 16 * 16 * 1000 + 1000)
    assert memory.rival == (3 * parameters + gpu_step.STAGING_BYTES) / 2**20
