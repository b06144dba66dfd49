"""Stages of survivors: which communicator each is done on; real deaths are in tests/run."""

import pytest
from mpi4py import MPI

from acidmpi.mpi import survival


@pytest.fixture(name="world")
def of_one_rank(monkeypatch):
    """A communicator, those that were made of it, and what the ranks will agree on."""
    made, agreed = [], []

    def polite(call, seconds):
        if call.__name__ != "Shrink":
            return agreed.pop(0) if agreed else True
        made.append(MPI.COMM_SELF.Dup())
        return made[-1]

    monkeypatch.setattr(survival, "_polite", polite)
    comm = MPI.COMM_SELF.Dup()
    yield comm, made, agreed
    for each in (comm, *made):
        each.Free()


def stage(survivors):
    return survivors.comm, survivors.ranks


def test_one_that_all_have_passed_serves_the_next_stage(world):
    comm, made, _ = world
    for _ in range(3):
        assert survival.together(comm, stage, 1.0).value == (made[0], (0,))
    assert len(made) == 1


def test_after_a_stage_that_somebody_has_not_passed_another_one_is_made(world):
    comm, made, agreed = world
    survival.together(comm, stage, 1.0)
    agreed.append(False)
    assert survival.together(comm, stage, 1.0).value == (made[1], (0,))
    survival.together(comm, stage, 1.0)
    assert len(made) == 2


def test_one_that_a_stage_keeps_for_itself_serves_no_other(world):
    comm, made, _ = world
    survival.together(comm, stage, 1.0)
    (mine, _), _ = survival.together(comm, stage, 1.0, keep=False)
    assert mine == made[1]
    assert survival.together(comm, stage, 1.0).value[0] == made[0]
    assert len(made) == 2
