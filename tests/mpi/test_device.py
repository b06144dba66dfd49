"""Gossip and transports of device memory over MPI, on host memory that presents itself so.

The stand-in's addresses are real ones, so MPI can be given them as it would be a GPU's.
"""

import numpy as np
import pytest
from mpi4py import MPI
from support.streams import Gpu, QueuedKernels, World

import acidmpi
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.testing.test_transports import turns
from acidmpi.testing.transports import CONTRACT, Carried, run_alone
from acidmpi.transport.choice import Choice
from acidmpi.transport.device import DeviceTransport
from acidmpi.transport.host import HostTransport
from acidmpi.transport.staged import StagedTransport

pytestmark = pytest.mark.mpi

KINDS = {"device": DeviceTransport, "staged": StagedTransport}


@pytest.fixture(name="gpu")
def stand_in():
    return Gpu(World(eager=True))


@pytest.fixture(name="comm")
def duplicate():
    comm = MPI.COMM_WORLD.Dup()
    yield comm
    comm.Free()


@pytest.mark.parametrize("kind", KINDS)
def test_transports_of_device_memory_keep_the_contract(kind, comm, gpu):
    stream = gpu.stream()
    transport = Carried(KINDS[kind](HostTransport(comm), gpu, stream), gpu, stream)
    for routine in CONTRACT:
        for peer in turns(comm.rank, comm.size):
            run_alone(routine(transport, comm.rank, peer))


@pytest.fixture(name="presented")
def presented_as_cuda(monkeypatch, gpu):
    """Let Gossip take the stand-in for a GPU."""
    monkeypatch.setattr("acidmpi.worker.gossip.device_of", lambda x: gpu)
    kernels = {"cuda": QueuedKernels(load("cpu"), gpu)}
    monkeypatch.setattr("acidmpi.worker.place.load", lambda name: kernels[name])
    monkeypatch.setattr(
        "acidmpi.transport.choice.choose",
        lambda asked, comm, device: Choice(asked, "asked for"),
    )
    return gpu


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["a2cid2", "async"])
def test_gossip_of_device_arrays_ends_in_the_average(kind, method, presented, comm):
    numbers = np.random.default_rng(comm.rank).standard_normal(70_000, np.float32)
    x = presented.array(numbers)
    update = presented.array(np.full(70_000, 0.01, np.float32))
    with acidmpi.Gossip(
        x,
        comm=comm,
        topology="complete",
        method=method,
        transport=kind,
        staging_bytes=1 << 19,
        comm_rate=1.0,
        unit_seconds=1e-3,
        total_gradients=20 * comm.size,
    ) as gossip:
        while not gossip.finished:
            gossip.apply(update)
            assert gossip.read().shape == x.shape
    told = gossip.statistics()
    sums = np.append(numbers.astype(np.float64), told.gradients)
    comm.Allreduce(MPI.IN_PLACE, sums)
    expected = (sums[:-1] + 0.01 * sums[-1]) / comm.size
    np.testing.assert_allclose(x.get(), expected, atol=2e-5)
    assert told.transport == kind
    assert told.mean_drift < 1e-5


def test_host_arrays_do_not_take_a_transport_for_devices(comm):
    with pytest.raises(ConfigError, match="take transport host or auto"):
        acidmpi.Gossip(np.zeros(3), comm=comm, topology="complete", transport="staged")
