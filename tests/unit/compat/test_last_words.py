"""What an uncaught exception does to the other ranks."""

import sys

import pytest

from acidmpi.compat.last_words import LastWords


class Comm:
    """Notes that it was aborted, and what had been printed by then."""

    def __init__(self, size):
        self.size = size
        self.calls = []

    def Abort(self, status):
        self.calls.append(("abort", status))


@pytest.fixture
def comm(monkeypatch):
    comm = Comm(2)
    monkeypatch.setattr(sys, "excepthook", lambda *_: comm.calls.append("printed"))
    return comm


def die():
    sys.excepthook(ValueError, ValueError("planted"), None)


def test_it_is_printed_and_ends_all(comm):
    words = LastWords(comm)
    words.listen()
    die()
    assert comm.calls == ["printed", ("abort", 1)]


def test_one_rank_alone_ends_nobody(comm):
    comm.size = 1
    LastWords(comm).listen()
    die()
    assert comm.calls == ["printed"]


def test_nothing_is_left_of_it(comm):
    before = sys.excepthook
    words = LastWords(comm)
    words.listen()
    words.ignore()
    assert sys.excepthook is before


def test_somebody_else_came_in_front(comm):
    words = LastWords(comm)
    words.listen()
    ours = sys.excepthook

    def other(*arguments):
        ours(*arguments)

    sys.excepthook = other
    words.ignore()
    assert sys.excepthook is other
    die()
    assert comm.calls == ["printed"]
