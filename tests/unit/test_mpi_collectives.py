"""Collectives of one rank, and what ranks that disagree are told; more in tests/mpi.

Not in a folder `mpi`: pytest-mpi would take that for its marker and skip them.
"""

import weakref

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.errors import ConfigError, DeadlineExceeded, DisagreementError, RemoteError
from acidmpi.mpi import collectives
from acidmpi.mpi.collectives import (
    agree,
    agreeing,
    allgather,
    broadcast,
    check_same,
    complete,
    describe,
)
from acidmpi.mpi.reductions import start_broadcast, start_sum, start_sum_at_root
from acidmpi.progress.limits import Limits

COMM = MPI.COMM_SELF
SECONDS = 10.0


class Stuck:
    """An operation that never completes."""

    def Test(self):
        return False


def test_a_wait_meets_its_deadline_and_says_for_what():
    with pytest.raises(DeadlineExceeded, match=r"0.01 s in a test of waiting"):
        complete(Stuck(), 0.01, "a test of waiting")


def test_a_long_wait_is_told_now_and_then(monkeypatch, caplog):
    monkeypatch.setattr(collectives, "SHORTEST", 0.01)
    monkeypatch.setattr(Limits, "stall_seconds", 0.02)
    with pytest.raises(DeadlineExceeded):
        complete(Stuck(), 0.2, "a test of waiting")
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(
        "acidmpi: rank 0 has waited 0.02 s for a test of waiting; some"
    )
    assert 2 <= len(told) <= 3


def test_a_short_wait_is_not(caplog):
    with pytest.raises(DeadlineExceeded):
        complete(Stuck(), 0.2, "a test of waiting")
    assert caplog.records == []


def test_an_operation_given_up_keeps_its_buffers():
    """MPI may write to them later."""
    request = Stuck()
    watched = weakref.ref(request)
    with pytest.raises(DeadlineExceeded):
        complete(request, 0.001, "a test")
    del request
    assert watched() is not None


def test_a_wait_ends_when_the_operation_does():
    answers = iter([False] * 5 + [True])

    class Slow:
        def Test(self):
            return next(answers)

    complete(Slow(), SECONDS, "a test")
    assert next(answers, None) is None


@pytest.mark.parametrize("value", [None, 1.5, "é", {"a": [1, 2]}, np.arange(3)])
def test_values_of_any_kind_travel(value):
    assert str(allgather(COMM, value, SECONDS, "a test")) == str([value])
    assert str(broadcast(COMM, value, SECONDS, "a test")) == str(value)


def test_errors_travel_to_be_raised():
    error = broadcast(COMM, ConfigError("wrong"), SECONDS, "a test")
    assert isinstance(error, ConfigError)


def test_where_nobody_fails_all_go_on():
    agree(COMM, None, SECONDS)
    with agreeing(COMM, SECONDS):
        pass


def test_own_errors_are_raised_as_they_are():
    error = ZeroDivisionError("planted")
    with pytest.raises(ZeroDivisionError) as caught:
        agree(COMM, error, SECONDS)
    assert caught.value is error
    with pytest.raises(ZeroDivisionError, match="planted"), agreeing(COMM, SECONDS):
        raise ZeroDivisionError("planted")


@pytest.fixture
def others(monkeypatch):
    """`others(…)`: what every rank gives to the next `allgather`."""

    def give(*values):
        monkeypatch.setattr(collectives, "allgather", lambda *_: list(values))

    return give


def test_the_first_rank_that_failed_is_named(others):
    others(None, "out of memory", "no file")
    with pytest.raises(RemoteError, match="rank 1 failed: out of memory"):
        agree(COMM, None, SECONDS)


SAME = {"seed": "0", "array": "float32[10]"}


def told(others, *held):
    others(*held)
    with pytest.raises(DisagreementError) as caught:
        check_same(COMM, held[0], SECONDS)
    return str(caught.value)


def test_ranks_that_agree_go_on(others):
    others(SAME, dict(reversed(SAME.items())), SAME)
    check_same(COMM, SAME, SECONDS)


def test_who_differs_is_named_with_both_values(others):
    text = told(others, SAME, SAME, SAME | {"seed": "7"}, SAME)
    assert text == (
        "all ranks must agree; rank 2 has seed = 7, others 0; "
        "start every rank with the same program and options"
    )


def test_ranks_that_differ_alike_share_a_line(others):
    text = told(others, *[SAME | {"seed": s} for s in "0010102"])
    assert "rank 2, 4 has seed = 1, others 0; rank 6 has seed = 2, others 0;" in text


def test_on_a_tie_the_lowest_rank_is_right(others):
    assert "rank 1 has seed = 5, others 9" in told(others, {"seed": "9"}, {"seed": "5"})


def test_what_a_rank_lacks_is_named(others):
    text = told(others, SAME, SAME, {"seed": "0"})
    assert "rank 2 has array = nothing, others float32[10]" in text


def test_many_differences_are_counted(others):
    one = {f"option {k}": "0" for k in range(9)}
    text = told(others, one, dict.fromkeys(one, "1"))
    assert text.count("rank 1 has") == collectives.MOST_DIFFERENCES
    assert "and 4 more differences" in text


def test_errors_are_described_in_one_line():
    assert describe(ConfigError("size must be positive")) == "size must be positive"
    assert describe(KeyError("x")) == "KeyError: 'x'"


def test_reductions_of_one_rank_are_copies():
    mine, result = np.arange(4.0), np.zeros(4)
    for start in (start_sum, start_sum_at_root):
        result[:] = 0
        complete(start(COMM, mine, result), SECONDS, "a test")
        np.testing.assert_array_equal(result, mine)
    array = np.array([True, False])
    complete(start_broadcast(COMM, array), SECONDS, "a test")
    assert array.tolist() == [True, False]
