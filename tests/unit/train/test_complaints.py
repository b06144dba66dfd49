"""Which error each rank raises when some complain."""

import pytest

from acidmpi.errors import (
    DataError,
    DeadlineExceeded,
    DeviceMemoryError,
    NonFiniteError,
    RemoteError,
)
from acidmpi.train.complaints import can_wait, common_error, complaint_of

OWN = KeyError("mine")
DATA = DataError("a file is damaged")


def raised(errors):
    """What each rank raises, given the errors of all."""
    told = [complaint_of(error) for error in errors]
    return [common_error(told, rank, error) for rank, error in enumerate(errors)]


def test_the_rank_that_has_it_raises_it_and_the_others_its_text():
    first, second, third = raised([None, OWN, None])
    assert second is OWN
    for other in (first, third):
        assert isinstance(other, RemoteError)
        assert "rank 1 failed" in str(other)
        assert "KeyError: 'mine'" in str(other)


def test_of_unforeseen_errors_the_lowest_ranks_alone_is_shown():
    first, second, third = raised([OWN, ValueError("late"), DATA])
    assert first is OWN
    assert isinstance(second, RemoteError)
    assert third is DATA


def test_a_gradient_that_is_not_finite_is_one_error_on_all_ranks():
    texts = {str(e) for e in raised([None, NonFiniteError("here"), OWN])}
    assert len(texts) == 1
    assert "one of rank 1 is not finite" in texts.pop()


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (OWN, True),
        (DATA, True),
        (DeviceMemoryError("full"), True),
        (RemoteError(0, "x"), False),
        (DeadlineExceeded("x"), 0),
    ],
)
def test_what_the_averaging_itself_raises_cannot_wait(error, waits):
    assert can_wait(error) == waits
