"""Gossip and transports of device memory over MPI, on host memory that presents itself so.

The stand-in's addresses are real ones, so MPI can be given them as it would be a GPU's.
"""

import time
from collections import Counter

import numpy as np
import pytest
import torch
from mpi4py import MPI
from support.guarded import GuardedHost
from support.instant_device import InstantDevice
from support.streams import CurrentStream, Gpu, QueuedKernels, World
from torch import nn

import acidmpi
from acidmpi.checkpoint.keeper import Keeper
from acidmpi.checkpoint.sets import Sets
from acidmpi.errors import ConfigError, NonFiniteError, RemoteError
from acidmpi.kernels import load
from acidmpi.testing.test_transports import meeting, turns
from acidmpi.testing.transports import CONTRACT, Carried, run_alone, takes_back
from acidmpi.transport.choice import Choice
from acidmpi.transport.device import DeviceTransport
from acidmpi.transport.host import HostTransport
from acidmpi.transport.staged import StagedTransport
from acidmpi.worker.keeping import Keeping

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


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_side_has_begun_is_taken_back(kind, comm, gpu):
    stream = gpu.stream()
    transport = Carried(KINDS[kind](HostTransport(comm), gpu, stream), gpu, stream)
    for peer in turns(comm.rank, comm.size):
        run_alone(takes_back(transport, comm.rank, peer, lambda: meeting(comm)))


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


class LateDevice(InstantDevice):
    """Says that its work is done when it is asked for the third time."""

    def __init__(self):
        super().__init__()
        self.asked = Counter()

    def record(self, stream):
        return object()

    def done(self, event):
        self.asked[event] += 1
        return self.asked[event] > 2


class TurnsDevice(CurrentStream, LateDevice):
    """One that also knows in whose stream a thread works at the moment."""


@pytest.fixture(name="device")
def device_of_the_model():
    return TurnsDevice()


@pytest.fixture(name="model")
def model_on_a_device(monkeypatch, device):
    """A model that `Worker` takes for one on a GPU; nobody may look at its gradients."""
    monkeypatch.setattr("acidmpi.arrays.torch.model.accelerator_for", lambda _: device)
    kernels = GuardedHost(load("cpu"))
    monkeypatch.setattr("acidmpi.worker.place.load", lambda name: kernels)
    monkeypatch.setattr(
        "acidmpi.transport.choice.choose",
        lambda asked, comm, device: Choice("staged", "asked for"),
    )
    monkeypatch.delattr("acidmpi.arrays.torch.FlatModel.gradients_finite")
    return nn.Linear(3, 2).double()


LAST = MPI.COMM_WORLD.size - 1


def train(model, comm, bad, gradients, **options):
    """Gradients that are all ones, but NaN in some of the last rank's."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    worker = acidmpi.Worker(
        model, optimizer, comm=comm, unit_seconds=1e-3, deadline_seconds=30, **options
    )
    start = comm.bcast(model.weight.detach().numpy().copy())
    with worker:
        for number in range(1, gradients + 1):
            sum(p.sum() for p in model.parameters()).backward()
            if comm.rank == LAST and number in bad:
                model.bias.grad[1] = float("nan")
            worker.step(zero_grad=True)
            time.sleep(1e-3)
    return worker, start


def test_a_worker_leaves_out_what_its_device_finds(model, comm):
    worker, start = train(model, comm, (1, 4, 20), 20, nonfinite="skip")
    assert worker.skipped == (3 if comm.rank == LAST else 0)
    assert worker.statistics().gradients == 20
    applied = 20 - 3 / comm.size
    np.testing.assert_allclose(
        model.weight.detach().numpy(), start - 0.01 * applied, atol=1e-12
    )


@pytest.mark.parametrize("number", [5, 12])
def test_a_worker_tells_late_what_its_device_finds(number, model, comm):
    """The last but some, and the very last: in a step, and in close()."""
    own = comm.rank == LAST
    texts = ("'bias'", f"gradient {number} of rank {LAST}")
    with pytest.raises(NonFiniteError if own else RemoteError, match=".*".join(texts)):
        train(model, comm, (number,), 12)


@pytest.mark.parametrize("regular", [True, False])
def test_what_a_checkpoint_copies_is_queued_in_a_turn_of_the_caller(
    regular, model, device, comm, folder
):
    """Else the loop, which copies it to the host, would not wait for it."""
    every = 4 * comm.size if regular else None
    whose = {"rank": comm.rank, "size": comm.size}
    keeper = Keeper(Sets(folder), **whose, session="test", first=1, every=every)
    keeper.ask()
    seen = []
    keeping = Keeping(keeper, position=lambda: seen.append(device.current) or {})
    train(model, comm, (), 12, keeping=keeping)
    keeper.close()
    assert len(seen) > 1
    assert set(seen) == {device.caller()}
