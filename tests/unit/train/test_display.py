"""What is shown: by rank 0 only, in lines where nobody watches, and a table at last."""

import io
import os

import pytest

from acidmpi.clocks import ManualClock
from acidmpi.train.display import (
    Bar,
    Lines,
    Moment,
    Silence,
    is_terminal,
    make_display,
    number,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def moment(**changes):
    values = {
        "seconds": 12.0,
        "gradients": 50,
        "total_gradients": 200,
        "loss": 0.5,
        "comm_rate": float("nan"),
        "consensus_distance": None,
    }
    return Moment(**{**values, **changes})


def test_only_rank_0_shows_anything():
    clock, out = ManualClock(), io.StringIO()
    assert isinstance(make_display(1, 1.0, clock, out), Silence)
    assert isinstance(make_display(0, 1.0, clock, out), Lines)


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # a dumb one gets lines
    out = Terminal()
    display = make_display(0, 1.0, ManualClock(), out)
    assert isinstance(display, Bar)
    display.moment(moment())
    display.line("50% average: [no markup]")
    display.table("result", [("ranks", "4")])
    display.close()
    text = out.getvalue()
    assert "25%" in text
    assert "[no markup]" in text
    assert "ranks" in text
    shows_cursor = "\x1b[?25h"
    assert text.rindex(shows_cursor) > text.rindex("\x1b[?25l")


def test_lines_have_no_control_characters():
    out = io.StringIO()
    display = Lines(out, 1.0, ManualClock())
    display.moment(moment())
    display.line("a line")
    display.table("result", [("ranks", "4"), ("test accuracy", "95.00%")])
    display.close()
    text = out.getvalue()
    assert text.replace("\n", "").isprintable()
    assert " 25% " in text
    assert "50/200 gradients" in text
    assert "loss 0.5  rate -  distance -" in text
    assert "ranks          4\n" in text


def test_progress_is_due_once_in_the_interval():
    clock = ManualClock()
    display = Lines(io.StringIO(), 5.0, clock)
    assert not display.due()
    clock.advance(5.0)
    assert display.due()
    assert not display.due()
    clock.advance(4.9)
    assert not display.due()


def test_more_gradients_than_asked_are_not_more_than_everything():
    assert moment(gradients=230).share == 1.0


def test_silence_is_silent(capsys):
    display = Silence()
    display.moment(moment())
    display.line("x")
    display.table("x", [])
    display.close()
    assert not display.due()
    assert capsys.readouterr().out == ""


def test_a_launchers_pseudo_terminal_is_no_person(monkeypatch):
    """Open MPI's ranks write to a terminal even if mpiexec writes to a file."""
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    for parent, expected in (("pipe:[7]", False), ("/dev/pts/3", True)):
        monkeypatch.setattr(os, "readlink", lambda path, answer=parent: answer)
        assert is_terminal(out) is expected
    monkeypatch.setenv("TERM", "dumb")
    assert not is_terminal(out)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (float("nan"), "-"), (0.123456, "0.1235"), (0, "0")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
