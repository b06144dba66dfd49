"""A start of MPI that is watched, with notices to order."""

import queue
import threading
import time

import pytest
from mpi4py import MPI

from acidmpi.mpi import leaving, pmix, start
from acidmpi.mpi.leaving import NOT_STARTED_STATUS
from acidmpi.mpi.pmix import Death, DeathNotices
from acidmpi.mpi.start import Watch

assert MPI.Is_initialized()


class Notices:
    """Tells of deaths when it begins, after so many looks."""

    def __init__(self, deaths=(), looks=1):
        self._deaths, self._looks = deaths, looks
        self.ended = False

    def __call__(self, _job, tell):
        self._tell = tell
        return self

    def begin(self):
        self._looks -= 1
        if self._looks > 0:
            return False
        for death in self._deaths:
            self._tell(death)
        return True

    def end(self):
        self.ended = True


def said_in(notices, seconds=20.0, block=None):
    """What ends the process in a block that takes until then."""
    said = queue.SimpleQueue()
    watch = Watch(seconds, notices, said.put)
    with watch:
        text = said.get(timeout=10) if block is None else block()
    assert said.empty()
    return text


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.delenv("PMIX_SERVER_TMPDIR", raising=False)
    monkeypatch.setattr(start, "SETTLE_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("deaths", "words"),
    [
        ([Death(3, 137)], "rank 3 (signal 9) died before MPI was ready"),
        (
            [Death(3, 137), Death(1, 5)],
            "rank 1 (exit status 5), rank 3 (signal 9) died",
        ),
        ([Death(0, 76), Death(2, None)], "rank 2 died before"),
        ([Death(0, NOT_STARTED_STATUS)], "a rank died before MPI was ready"),
    ],
)
@pytest.mark.parametrize("looks", [1, 3])
def test_a_death_ends_it(deaths, words, looks):
    notices = Notices(deaths, looks)
    assert words in said_in(notices)
    assert notices.ended


class Deaf(Notices):
    """Never comes to listen, because the launcher hangs."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()

    def begin(self):
        return self.free.wait(20)


def said_to_the_deaf(seconds):
    """What ends the process of one who cannot listen."""
    deaf, said = Deaf(), queue.SimpleQueue()
    with Watch(seconds, deaf, said.put):
        text = said.get(timeout=10)
        deaf.free.set()
    return text


def test_another_rank_of_the_node_that_leaves_is_followed(monkeypatch, tmp_path):
    monkeypatch.setenv("PMIX_SERVER_TMPDIR", str(tmp_path))
    assert leaving._is_first_to_tell()
    assert "a rank died before MPI was ready" in said_to_the_deaf(20)


def test_who_cannot_listen_leaves_in_time():
    assert "MPI did not start within 0.1 s" in said_to_the_deaf(0.1)


def test_who_cannot_stop_listening_leaves_in_time():
    deaf, said = Deaf(), []
    with Watch(0.3, deaf, said.append):
        pass  # MPI has started
    deaf.free.set()
    assert said == [start.LATE.format(0.3)]


def test_a_start_that_takes_too_long_ends_too():
    text = said_in(Notices(), seconds=0.1)
    assert "MPI did not start within 0.1 s" in text
    assert said_in(Notices(looks=10**9), seconds=0.1) == text, "PMIx never ran"


def test_a_death_whose_news_is_lost_is_found_by_counting(monkeypatch):
    monkeypatch.setattr(start, "CENSUS_SECONDS", 0.02)
    looks = iter([True, False, True, True])
    monkeypatch.setattr(start, "somebody_is_gone", lambda: next(looks))
    assert "a rank died before MPI was ready" in said_in(Notices())
    assert next(looks, None) is None, "one look may find processes being started"


def test_a_start_that_succeeds_is_let_alone():
    notices = Notices()
    assert said_in(notices, block=lambda: "done") == "done"
    assert notices.ended


class Late(Notices):
    """Hears of a death at the last moment."""

    def end(self):
        super().end()
        self._tell(Death(1, 137))


@pytest.mark.parametrize("notices", [Notices([Death(1, 137)]), Late()])
def test_a_death_that_mpi_has_not_heard_of_ends_it_even_when_it_has_started(
    monkeypatch, notices
):
    monkeypatch.setattr(start, "SETTLE_SECONDS", 20)
    said = []
    before = time.monotonic()
    with Watch(20, notices, said.append):
        while not said and not isinstance(notices, Late) and notices._looks > 0:
            time.sleep(0.01)
    assert time.monotonic() - before < 10
    assert len(said) == 1
    assert "rank 1 (signal 9) died" in said[0]


def test_who_has_started_does_not_follow_others(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "SETTLE_SECONDS", 20)
    monkeypatch.setenv("PMIX_SERVER_TMPDIR", str(tmp_path))
    assert leaving._is_first_to_tell()
    assert said_in(Notices(), block=lambda: time.sleep(0.1)) is None


def test_a_library_whose_events_have_other_numbers_is_not_listened_to(monkeypatch):
    class Old:
        @staticmethod
        def PMIx_Error_string(code):
            return b"ERROR STRING NOT FOUND"

    assert not pmix._is_known(Old)
    monkeypatch.setattr(pmix, "pmix_library", lambda: None)
    notices = DeathNotices("job", print)
    assert notices.begin(), "there is nothing to wait for"
    notices.end()
