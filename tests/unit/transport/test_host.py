"""What the host transport makes of errors, on a communicator that makes them up."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.errors import PeerDied, PeerFailed
from acidmpi.transport.host import HostTransport

DEAD = MPI.Exception(MPI.ERR_PROC_FAILED)
TORN = MPI.Exception(MPI.ERR_TRUNCATE)


class Request:
    """Of a made-up communicator."""

    def __init__(self, comm):
        self._comm = comm
        self.cancelled = False

    def Test(self):
        if self._comm.error is not None:
            raise self._comm.error
        return self._comm.over or self.cancelled

    def Cancel(self):
        self.cancelled = True


class Comm:
    """Every operation ends as its attributes say."""

    def __init__(self):
        self.error = None
        self.over = False
        self.most = float("inf")
        self.requests = []

    def Irecv(self, *args):
        if self.error is not None:
            raise self.error
        if len(self.requests) == self.most:
            raise DEAD
        self.requests.append(Request(self))
        return self.requests[-1]

    Isend = Irecv


@pytest.fixture
def comm():
    return Comm()


@pytest.fixture
def transport(comm):
    return HostTransport(comm)


def begin(transport):
    transport.post(1, np.zeros(2), np.zeros(2))


def test_what_the_dead_have_withdrawn_is_not_waited_for(transport, comm):
    comm.error = DEAD
    transport.drain(1, [8, 8])
    assert transport.is_quiet()


def test_a_peer_that_dies_while_it_is_drained_is_not_waited_for(transport, comm):
    transport.drain(1, [8, 8])
    assert not transport.is_quiet()
    comm.error = DEAD
    assert transport.is_quiet()


@pytest.mark.parametrize(("error", "kind"), [(DEAD, PeerDied), (TORN, PeerFailed)])
def test_errors_of_what_is_waited_for_are_told(transport, comm, error, kind):
    comm.error = error
    with pytest.raises(kind):
        begin(transport)


def test_any_other_error_is_told_whatever_it_is_of(transport, comm):
    transport.drain(1, [8])
    comm.error = TORN
    with pytest.raises(PeerFailed):
        transport.is_quiet()
    with pytest.raises(PeerFailed):
        transport.drain(1, [8])


def test_what_is_withdrawn_is_tested_to_its_end(transport, comm):
    begin(transport)
    assert transport.withdraw() == 1
    receive, send = comm.requests
    assert receive.cancelled
    assert not send.cancelled
    assert not transport.is_quiet()
    comm.over = True
    assert transport.is_quiet()


def test_a_long_buffer_goes_in_pieces_and_is_there_when_all_are(comm):
    transport = HostTransport(comm, lambda _: 24)
    pending = transport.post(1, np.zeros(7), np.zeros(7))  # 24 + 24 + 8 bytes
    assert len(comm.requests) == 6
    for request in comm.requests[:-1]:
        assert not pending.test()
        request.cancelled = True  # which is what complete is here
    assert not pending.test()
    comm.over = True
    assert pending.test()
    assert transport.withdraw() == 0


def test_what_fits_goes_in_one_piece(comm):
    HostTransport(comm, lambda _: 56).post(1, np.zeros(7), np.zeros(7))
    assert len(comm.requests) == 2


def test_what_was_sent_before_the_peer_was_found_dead_is_kept(comm):
    transport, comm.most = HostTransport(comm, lambda _: 24), 4
    with pytest.raises(PeerDied):
        transport.post(1, np.zeros(7), np.zeros(7))
    assert transport.withdraw() == 1
    assert [request.cancelled for request in comm.requests] == [True] * 3 + [False]


def test_pieces_are_drained_as_they_were_sent(comm):
    HostTransport(comm, lambda _: 24).drain(1, [56, 8, 0])
    assert len(comm.requests) == 4
