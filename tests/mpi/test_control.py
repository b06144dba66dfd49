"""What the loops rest on, between real ranks: control messages, sums, agreements."""

import time

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.clocks import WallClock
from acidmpi.errors import (
    ConfigError,
    DeadlineExceeded,
    DisagreementError,
    PeerFailed,
    RemoteError,
)
from acidmpi.kernels import load
from acidmpi.mpi.collectives import agree, allgather, broadcast, check_same, complete
from acidmpi.mpi.communicators import PURPOSES, Communicators
from acidmpi.mpi.nodes import find_node
from acidmpi.pairing.wire import FAIL, LARGEST_TEXT_BYTES, STOP, Notice, Wire
from acidmpi.progress import Pace
from acidmpi.telemetry.heartbeat import Heartbeat
from acidmpi.transport.host import HostTransport
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.state import RankState
from acidmpi.worker.units import LogicalUnits

COMM = MPI.COMM_WORLD
SECONDS = 30.0

pytestmark = pytest.mark.mpi


@pytest.fixture
def comm():
    copy = COMM.Dup()
    yield copy
    copy.Free()


def receive(wire, count):
    """The next `count` messages."""
    messages, end = [], time.monotonic() + SECONDS
    while len(messages) < count and time.monotonic() < end:
        message = wire.receive()
        if message is not None:
            messages.append(message)
    assert len(messages) == count
    return messages


def test_messages_arrive_whole_and_in_order_of_each_sender(comm):
    wire, each = Wire(comm), 20
    for number in range(each):
        for peer in range(comm.size):
            notice = Notice(number % 16, 10**12 + number, 0.5 + number)
            wire.send(peer, STOP, notice, "x" * number)
    messages = receive(wire, each * comm.size)
    for source in range(comm.size):
        mine = [m for m in messages if m.source == source]
        assert [m.notice.gradients - 10**12 for m in mine] == list(range(each))
        assert [m.notice.alpha_tilde for m in mine] == [0.5 + k for k in range(each)]
        assert [len(m.text) for m in mine] == list(range(each))
        assert {m.kind for m in mine} == {STOP}
    assert wire.sent == wire.received == each * comm.size
    assert wire.sent_to == [each] * comm.size
    comm.Barrier()
    assert wire.quiet
    wire.close()
    wire.close()


def test_a_text_that_is_too_long_is_cut(comm):
    wire = Wire(comm)
    wire.send((comm.rank + 1) % comm.size, FAIL, Notice(), "é" * LARGEST_TEXT_BYTES)
    (message,) = receive(wire, 1)
    assert message.text == "é" * (LARGEST_TEXT_BYTES // 2)
    comm.Barrier()
    wire.close()


def beat(heartbeat, vector, rounds):
    """Sums of the next rounds."""
    sums, end = [], time.monotonic() + SECONDS
    while len(sums) < rounds and time.monotonic() < end:
        result = heartbeat.poll(lambda: vector)
        if result is not None:
            sums.append(result)
    assert len(sums) == rounds
    return sums


def test_heartbeats_sum_over_the_ranks_and_hurry_when_told(comm):
    heartbeat = Heartbeat(comm, 3, 100.0, SECONDS, WallClock())
    heartbeat.hurried = True
    mine = np.array([1.0, comm.rank, 0.5])
    n = comm.size
    for total in beat(heartbeat, mine, 5):
        np.testing.assert_allclose(total, [n, n * (n - 1) / 2, n / 2])
    assert heartbeat.rounds == 5
    assert heartbeat.age < 1.0


def test_a_heartbeat_that_a_rank_does_not_join_ends_in_an_error(comm):
    heartbeat = Heartbeat(comm, 1, 0.01, 0.2, WallClock())
    heartbeat.hurried = True
    late = comm.rank == comm.size - 1 and comm.size > 1
    if not late and comm.size > 1:
        with pytest.raises(DeadlineExceeded, match="heartbeat"):
            beat(heartbeat, np.ones(1), 1)
    comm.Barrier()
    patient = Heartbeat(comm, 1, 0.01, SECONDS, WallClock()) if late else heartbeat
    patient.hurried = True
    patient._deadline._seconds = SECONDS
    patient._deadline.renew()
    assert beat(patient, np.ones(1), 1)[0][0] == comm.size


def test_objects_reach_everyone():
    values = allgather(COMM, ("rank", COMM.rank, "x" * COMM.rank), SECONDS, "a test")
    assert values == [("rank", r, "x" * r) for r in range(COMM.size)]
    mine = {"from": COMM.rank, "data": list(range(1000))}
    assert broadcast(COMM, mine, SECONDS, "a test")["from"] == 0


def test_one_error_stops_all_and_is_named():
    agree(COMM, None, SECONDS)
    bad = COMM.size - 1
    error = ConfigError("a planted mistake") if bad == COMM.rank else None
    expected = ConfigError if bad == COMM.rank else RemoteError
    with pytest.raises(expected, match="a planted mistake") as caught:
        agree(COMM, error, SECONDS)
    if bad != COMM.rank:
        assert caught.value.rank == bad


def test_ranks_that_differ_are_named_with_both_values():
    check_same(COMM, {"a": "1", "b": "2"}, SECONDS)
    values = {"a": "1", "b": "three" if COMM.rank == 1 else "2"}
    if COMM.size == 1:
        check_same(COMM, values, SECONDS)
        return
    with pytest.raises(DisagreementError, match="rank 1 has b = three, others 2"):
        check_same(COMM, values, SECONDS)


def test_an_incomplete_operation_ends_in_an_error(comm):
    data = np.zeros(1)
    request = comm.Irecv(data, comm.rank, 7)
    with pytest.raises(DeadlineExceeded, match="a message that nobody sent"):
        complete(request, 0.1, "a message that nobody sent")
    comm.Send(np.ones(1), comm.rank, 7)
    complete(request, SECONDS, "the message")
    assert data[0] == 1.0


def test_communicators_are_own_named_and_freed():
    comms = Communicators.open(COMM, SECONDS)
    for purpose in PURPOSES:
        copy = getattr(comms, purpose)
        assert MPI.Comm.Compare(copy, COMM) == MPI.CONGRUENT
        assert copy.Get_name().startswith(f"acidmpi.{purpose}")
    comms.close()
    assert comms.data == MPI.COMM_NULL
    with pytest.raises(ConfigError, match="intracommunicator"):
        Communicators.open(None, SECONDS)


def test_ranks_of_this_machine_are_counted():
    node = find_node(COMM, SECONDS)
    assert node.local_rank == COMM.rank
    assert node.local_size == COMM.size
    assert node.cores >= 1
    assert node.ranks_per_core == COMM.size / node.cores
    assert node.beside == (True,) * COMM.size


def test_a_silent_peer_ends_an_exchange_with_its_name(comm):
    """All ranks want to exchange with the last one, which does nothing at first."""
    state = RankState([np.zeros(100)], load("cpu"), LogicalUnits(), accelerated=True)
    transport = HostTransport(comm)
    exchanger = Exchanger(state, transport, 1 << 20, WallClock(), 0.2, 0.0)
    silent = comm.size - 1
    if comm.rank != silent or comm.size == 1:
        post = transport.post if comm.size > 1 else lambda *_: Silent()
        posted = []
        transport.post = lambda *args: posted.append(post(*args)) or posted[-1]
        with pytest.raises(PeerFailed, match=f"rank {silent} ") as caught:
            assert set(exchanger.exchange(Terms(silent, 0.5, 0.5))) <= set(Pace)
        assert caught.value.peer == silent
    comm.Barrier()
    if comm.rank == silent:
        for peer in range(silent):
            late, data = transport.post(peer, np.ones(100), np.zeros(100)), None
            while not late.test():
                assert data is None
    elif comm.size > 1:
        while not posted[0].test():
            pass
    comm.Barrier()


class Silent:
    """A transfer that never completes."""

    def test(self):
        return False
