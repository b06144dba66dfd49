"""Which transport is chosen, and what is said when it cannot be; ranks in tests/mpi."""

import pytest
from mpi4py import MPI

from acidmpi.errors import ConfigError
from acidmpi.transport.awareness import Claim
from acidmpi.transport.choice import _Told, choose, judged
from acidmpi.transport.trial.parent import Verdict

COMM = MPI.COMM_SELF
MOVED = Verdict(True, "bytes were right")
LOST = Verdict(False, "a process tried it and ended by SIGSEGV")


def says(*answers):
    return lambda comm: [Claim("library", answer, "") for answer in answers]


def never():
    raise AssertionError("a trial nobody asked for")


def test_staged_needs_neither_a_claim_nor_a_trial():
    assert choose("staged", COMM, ask=never, attempt=never).name == "staged"


def test_a_rank_alone_is_not_kept_waiting_by_a_trial():
    assert choose("auto", COMM, ask=never, attempt=never).name == "staged"


def test_device_is_tried_whatever_the_library_says():
    choice = choose("device", COMM, ask=says(False), attempt=lambda: MOVED)
    assert (choice.name, choice.reason) == ("device", MOVED.text)


def test_device_that_does_not_work_is_refused_with_reason_and_cure():
    with pytest.raises(ConfigError, match=r"(?s)SIGSEGV.*--transport staged or auto"):
        choose("device", COMM, ask=says(True), attempt=lambda: LOST)


def test_a_trial_that_cannot_be_made_is_a_failed_one():
    with pytest.raises(ConfigError, match="AssertionError: a trial nobody asked for"):
        choose("device", COMM, ask=says(True), attempt=never)


def test_an_unknown_transport_is_refused():
    with pytest.raises(ConfigError, match="'auto', 'device' or 'staged'"):
        choose("host", COMM)


def test_a_yes_without_a_trial_is_not_believed():
    assert judged([_Told(True, None)]).name == "staged"


def test_one_rank_whose_library_says_nothing_is_enough_for_staged():
    choice = judged([_Told(True, MOVED), _Told(False, None)])
    assert choice.name == "staged"
    assert "says nothing" in choice.reason


def test_one_machine_where_it_fails_is_enough_for_staged():
    told = [_Told(True, MOVED), _Told(True, None), _Told(True, LOST)]
    assert judged(told).reason == LOST.text


def test_device_where_every_machine_has_moved_bytes():
    told = [_Told(True, MOVED), _Told(True, None), _Told(True, MOVED)]
    assert judged(told).name == "device"


UNKNOWN = Verdict(False, "the launcher starts no processes", tried=False)


def test_where_nothing_can_be_tried_the_user_and_the_library_together_are_believed():
    told = [_Told(True, UNKNOWN), _Told(True, None)]
    choice = judged(told, asked=True)
    assert choice.name == "device"
    assert "not tried" in choice.reason


@pytest.mark.parametrize(
    ("claimed", "verdict", "asked"),
    [(True, UNKNOWN, False), (False, UNKNOWN, True), (True, LOST, True)],
)
def test_neither_of_them_alone_and_never_against_a_trial(claimed, verdict, asked):
    assert judged([_Told(claimed, verdict)], asked).name == "staged"
