"""Stages of one rank; those of several are in tests/mpi."""

import pytest
from mpi4py import MPI

from acidmpi.errors import DataError, DeadlineExceeded, RemoteError
from acidmpi.train import company as module
from acidmpi.train.company import Company


@pytest.fixture
def company():
    return Company(MPI.COMM_SELF, 30.0)


def fail(error):
    raise error


def test_a_stage_returns_what_its_action_does(company):
    assert company.together(lambda: 7) == 7
    assert company.together(lambda: None) is None
    assert company.first(lambda: "path") == "path"
    assert company.gather(3) == [3]
    assert not company.orderly


def test_an_own_error_is_raised_and_known_to_all(company):
    with pytest.raises(ZeroDivisionError):
        company.together(lambda: 1 / 0)
    assert company.orderly


def answer(monkeypatch, *texts):
    monkeypatch.setattr(module, "allgather", lambda *_: list(texts))


def test_the_error_of_another_rank_is_known_to_all(company, monkeypatch):
    answer(monkeypatch, None, None, "no file")
    with pytest.raises(RemoteError, match="rank 2 failed: no file"):
        company.together(lambda: 7)
    assert company.orderly


def test_the_first_of_the_ranks_with_unforeseen_errors_tells(company, monkeypatch):
    company.rank = 1
    answer(monkeypatch, None, "division by zero", "division by zero")
    with pytest.raises(ZeroDivisionError):
        company.together(lambda: 1 / 0)
    answer(monkeypatch, "division by zero", "division by zero", None)
    with pytest.raises(RemoteError, match="rank 0"):
        company.together(lambda: 1 / 0)


def test_foreseen_errors_stay_each_ranks_own(company, monkeypatch):
    company.rank = 1
    answer(monkeypatch, "no file", "no file")
    with pytest.raises(DataError):
        company.together(lambda: fail(DataError("no file")))


def test_a_rank_that_does_not_come_leaves_the_others_in_the_dark(company, monkeypatch):
    late = DeadlineExceeded("late")
    monkeypatch.setattr(module, "allgather", lambda *_: fail(late))
    with pytest.raises(DeadlineExceeded):
        company.together(lambda: 7)
    assert not company.orderly


def test_an_own_error_is_told_even_if_the_others_do_not_come(company, monkeypatch):
    late = DeadlineExceeded("no progress")
    monkeypatch.setattr(module, "allgather", lambda *_: fail(late))
    with pytest.raises(ZeroDivisionError):
        company.together(lambda: 1 / 0)
    assert not company.orderly


def test_patience_stretches_the_deadline(company, monkeypatch):
    seen = []

    def allgather(comm, value, seconds, what):
        seen.append(seconds)
        return [value]

    monkeypatch.setattr(module, "allgather", allgather)
    company.together(lambda: 7, patience=3.0)
    assert seen == [90.0]


def test_ranks_meet_or_give_up(company, monkeypatch):
    company.meet(1.0)

    def late(*arguments):
        raise DeadlineExceeded("nobody came")

    monkeypatch.setattr(module, "allgather", late)
    company.meet(1.0)
