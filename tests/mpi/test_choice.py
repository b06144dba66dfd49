"""Ranks choose one transport together, whoever of them learns what."""

import pytest
from mpi4py import MPI

from acidmpi.errors import ConfigError
from acidmpi.transport.awareness import Claim
from acidmpi.transport.choice import choose
from acidmpi.transport.trial.parent import Verdict

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
MOVED, LOST = Verdict(True, "bytes were right"), Verdict(False, "it crashed")

pytestmark = pytest.mark.mpi
several = pytest.mark.skipif(SIZE == 1, reason="one rank has nobody to send to")


class Trials:
    """Counts how often this rank was made to try."""

    def __init__(self, verdict):
        self._verdict = verdict
        self.made = 0

    def __call__(self):
        self.made += 1
        return self._verdict


def says(answer):
    return lambda comm: [Claim("library", answer, "")]


@several
def test_one_rank_of_a_machine_tries_for_all():
    trials = Trials(MOVED)
    assert choose("auto", COMM, ask=says(True), attempt=trials).name == "device"
    assert COMM.allreduce(trials.made) == 1


@several
def test_a_crash_that_one_rank_saw_makes_all_take_staged():
    trials = Trials(LOST)
    choice = choose("auto", COMM, ask=says(True), attempt=trials)
    assert (choice.name, choice.reason) == ("staged", "it crashed")


@several
def test_a_rank_whose_library_says_nothing_keeps_all_from_device():
    said = says(None if RANK == SIZE - 1 else True)
    assert choose("auto", COMM, ask=said, attempt=Trials(MOVED)).name == "staged"


def test_a_device_that_does_not_work_is_refused_on_all_ranks():
    with pytest.raises(ConfigError, match="it crashed"):
        choose("device", COMM, ask=says(True), attempt=Trials(LOST))
