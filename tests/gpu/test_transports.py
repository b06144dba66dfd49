"""Both transports between ranks' GPUs, or within one that they share."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.arrays.accelerator import store, to_host
from acidmpi.arrays.cuda.choice import choose_device, make_gpu
from acidmpi.arrays.device_site import DeviceSite
from acidmpi.clocks import WallClock
from acidmpi.mpi.nodes import find_node
from acidmpi.progress import Deadline
from acidmpi.transport.choice import choose
from acidmpi.transport.device import DeviceTransport
from acidmpi.transport.host import HostTransport
from acidmpi.transport.staged import StagedTransport

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
PEER = RANK ^ 1
LENGTHS = (1, 1000, 300_001, 5_000_000)
TOGETHER = 6

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.limit(120),
    pytest.mark.skipif(SIZE == 1, reason="one rank has nobody to send to"),
]


@pytest.fixture(scope="module")
def gpu():
    return make_gpu(choose_device("cuda", find_node(COMM, 60.0).local_rank))


@pytest.fixture(scope="module")
def works(gpu):
    """Whether MPI may be given device memory; the same on all ranks."""
    return choose("auto", COMM, device=gpu.index).name == "device"


@pytest.fixture(params=["staged", "device"])
def transport(request, gpu, works):
    if request.param == "device" and not works:
        pytest.skip("this MPI does not send from device memory")
    kind = {"staged": StagedTransport, "device": DeviceTransport}[request.param]
    site = DeviceSite(gpu)
    copy = COMM.Dup()
    yield kind(HostTransport(copy), gpu, site.stream), site
    copy.Free()


def values(rank, length, number=0):
    chance = np.random.default_rng([rank, length, number])
    return chance.standard_normal(length, np.float32)


def arrive(*pending):
    deadline = Deadline(30.0, WallClock(), "a transfer between GPUs")
    going = list(pending)
    while going:
        deadline.check()
        going = [one for one in going if not one.test()]


def filled(gpu, site, numbers):
    with gpu.on(site.stream):
        array = gpu.empty(numbers.size, numbers.dtype)
        store(array, numbers)
    return array


def arrived(gpu, site, array):
    with gpu.on(site.stream):
        return to_host(array)


def test_numbers_arrive_bit_for_bit(gpu, transport):
    mover, site = transport
    if PEER >= SIZE:
        return
    for length in LENGTHS:
        sent = filled(gpu, site, values(RANK, length))
        received = filled(gpu, site, np.zeros(length, np.float32))
        arrive(mover.post(PEER, sent, received))
        found = arrived(gpu, site, received)
        assert found.tobytes() == values(PEER, length).tobytes(), length


def test_transfers_posted_together_are_matched_in_order(gpu, transport):
    mover, site = transport
    if PEER >= SIZE:
        return
    sent = [filled(gpu, site, values(RANK, 70_000, k)) for k in range(TOGETHER)]
    received = [
        filled(gpu, site, np.zeros(70_000, np.float32)) for _ in range(TOGETHER)
    ]
    pairs = zip(sent, received, strict=True)
    arrive(*[mover.post(PEER, one, other) for one, other in pairs])
    for k in range(TOGETHER):
        found = arrived(gpu, site, received[k])
        assert found.tobytes() == values(PEER, 70_000, k).tobytes(), k


def test_a_message_holds_what_the_stream_wrote_before_it(gpu, transport):
    """The stream is busy for some milliseconds before it writes what is sent."""
    mover, site = transport
    if PEER >= SIZE:
        return
    length = 2_000_000
    with gpu.on(site.stream):
        sent = filled(gpu, site, np.zeros(length, np.float32))
        received = filled(gpu, site, np.zeros(length, np.float32))
        for round_number in range(1, 6):
            for _ in range(200):
                sent += 1.0  # late: many launches are queued behind one another
            arrive(mover.post(PEER, sent, received))
            found = to_host(received)
            assert (found == 200.0 * round_number).all(), (found.min(), found.max())
