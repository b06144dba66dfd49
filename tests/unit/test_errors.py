"""Errors: one family, kind to `except`, readable behind `acidmpi: error:`."""

import inspect
import pickle

import pytest

from acidmpi import errors
from acidmpi.errors import (
    AcidError,
    ConfigError,
    DeadlineExceeded,
    DiedAtStart,
    PeerDied,
    PeerFailed,
    RemoteError,
    TopologyError,
)

FAMILY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]
WITH_PARTS = (DiedAtStart, PeerDied, PeerFailed, RemoteError)
OTHERS = [kind for kind in FAMILY if kind not in WITH_PARTS]


@pytest.mark.parametrize("kind", FAMILY)
def test_all_are_of_one_family_and_in_its_picture(kind):
    assert issubclass(kind, AcidError)
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__


def test_mistakes_of_a_user_are_value_errors_and_missed_deadlines_timeouts():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(TopologyError, ValueError)
    assert issubclass(DeadlineExceeded, TimeoutError)


@pytest.mark.parametrize("kind", OTHERS)
def test_texts_stay_as_they_are_written(kind):
    assert str(kind("size must be positive, got 0")) == "size must be positive, got 0"


def test_a_failed_peer_is_named():
    error = PeerFailed(3, "a chunk")
    assert (error.peer, error.what) == (3, "a chunk")
    assert str(error) == "rank 3 failed while this rank waited for a chunk"


def test_a_remote_error_tells_rank_and_text():
    error = RemoteError(2, "no space left")
    assert (error.rank, error.text) == (2, "no space left")
    assert str(error) == "rank 2 failed: no space left"


def test_a_death_names_who_died_where_that_is_known():
    text = "has died while this one waited for a chunk"
    assert str(PeerDied(3, "a chunk")) == f"rank 3 {text}"
    assert str(PeerDied(-1, "a chunk")) == f"a rank {text}"


def test_a_death_at_the_start_says_what_can_be_done():
    text = str(DiedAtStart(3, "the start"))
    assert text.startswith("rank 3 has died in the start")
    assert "Shrink" in text


@pytest.mark.parametrize(
    "error",
    [
        PeerFailed(3, "a chunk"),
        PeerDied(3, "a chunk"),
        DiedAtStart(3, "the start"),
        RemoteError(2, "text"),
    ],
)
def test_errors_survive_the_way_to_another_rank(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
