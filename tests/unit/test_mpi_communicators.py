"""Communicators of one's own, and what is known of this machine and its MPI."""

import pytest
from mpi4py import MPI

from acidmpi.errors import ConfigError
from acidmpi.mpi.communicators import PURPOSES, Communicators, told_to_all
from acidmpi.mpi.fabric import has_fabric
from acidmpi.mpi.library import mpi_library
from acidmpi.mpi.nodes import Node, find_node
from acidmpi.progress import available_cores

SECONDS = 10.0


@pytest.mark.parametrize("bad", [None, 3, "world", MPI.COMM_NULL])
def test_only_communicators_are_accepted(bad):
    with pytest.raises(ConfigError, match="must be an mpi4py intracommunicator, got"):
        Communicators.open(bad, SECONDS)


def test_each_purpose_has_its_own_duplicate():
    comms = Communicators.open(MPI.COMM_SELF, SECONDS)
    purposes = ("collective", *PURPOSES)
    each = [getattr(comms, purpose) for purpose in purposes]
    for purpose, comm in zip(purposes, each, strict=True):
        assert MPI.Comm.Compare(comm, MPI.COMM_SELF) == MPI.CONGRUENT
        assert comm.Get_name().startswith(f"acidmpi.{purpose}")
        assert comm.Get_errhandler() == MPI.ERRORS_RETURN
    comms.close()
    assert all(comm == MPI.COMM_NULL for comm in each)


@pytest.mark.parametrize("asked", [[], ["control"], ["control", "heartbeat"]])
def test_nothing_is_duplicated_that_was_not_asked_for(asked):
    comms = Communicators.open(MPI.COMM_SELF, SECONDS, asked)
    assert comms.collective != MPI.COMM_NULL
    for purpose in PURPOSES:
        assert (getattr(comms, purpose) != MPI.COMM_NULL) == (purpose in asked)
    comms.close()


def test_two_sets_have_two_names():
    one, other = (Communicators.open(MPI.COMM_SELF, SECONDS) for _ in range(2))
    assert one.data.Get_name() != other.data.Get_name()
    one.close()
    other.close()


def test_the_callers_communicator_is_left_alone():
    comm = MPI.COMM_SELF.Dup()
    comm.Set_name("the caller's")
    before = comm.Get_errhandler()
    Communicators.open(comm, SECONDS).close()
    assert comm.Get_name() == "the caller's"
    assert comm.Get_errhandler() == before
    comm.Free()


def test_a_failure_before_the_start_is_raised():
    with pytest.raises(ZeroDivisionError), told_to_all(MPI.COMM_SELF):
        raise ZeroDivisionError
    with told_to_all(MPI.COMM_SELF):
        pass


def test_one_rank_is_alone_on_its_machine():
    node = find_node(MPI.COMM_SELF, SECONDS)
    alone = Node(0, 1, available_cores(), beside=(True,), fabric=has_fabric())
    assert node == alone


def test_ranks_share_cores():
    assert Node(local_rank=3, local_size=64, cores=2).ranks_per_core == 32.0
    assert Node(local_rank=0, local_size=1, cores=4).ranks_per_core == 0.25


def test_the_library_is_named_on_one_line():
    name = mpi_library()
    assert name
    assert name == name.strip()
    assert name.isprintable()
