"""Plans of faults: what they say, and what is refused with which rule."""

import math

import pytest

from acidmpi.errors import ConfigError
from acidmpi.faults.plan import ACTIONS, EVENTS, Plan, Span


def one(text):
    (fault,) = Plan.of(text).faults
    return fault


@pytest.mark.parametrize("text", [None, "", "  ", " ; "])
def test_nothing_is_planned(text):
    assert not Plan.of(text)


def test_one_fault():
    fault = one("rank=2 at=exchange:50 do=kill")
    assert (fault.ranks, fault.drawn_ranks) == ((2,), 0)
    assert (fault.event, fault.when, fault.action) == ("exchange", Span(50, 50), "kill")


@pytest.mark.parametrize(
    ("text", "ranks", "drawn"),
    [("0", (0,), 0), ("0,3", (0, 3), 0), ("all", None, 0), ("random:4", None, 4)],
)
def test_ranks(text, ranks, drawn):
    fault = one(f"rank={text} at=gradient:1 do=raise")
    assert (fault.ranks, fault.drawn_ranks) == (ranks, drawn)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("gradient:7", Span(7, 7)),
        ("gradient:7-9", Span(7, 9)),
        ("gradient:7-", Span(7, math.inf)),
        ("gradient:7~9", Span(7, 9, True)),
        ("seconds:1.5", Span(1.5, 1.5)),
        ("seconds:1~2", Span(1, 2, True)),
    ],
)
def test_moments(text, span):
    assert one(f"rank=0 at={text} do=kill").when == span


def test_amounts():
    assert one("rank=0 at=chunk:1- do=delay:0.001~0.01").amount == Span(
        0.001, 0.01, True
    )
    assert one("rank=0 at=gradient:1- do=slow:10").amount == Span(10, 10)
    assert one("rank=0 at=gradient:1 do=stop:2").amount == Span(2, 2)


def test_several_on_a_line_and_in_a_file(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(
        '[[fault]]\nrank = 2\nat = "exchange:50"\ndo = "kill"\n'
        '[[fault]]\nrank = "all"\nat = "start:kernels"\ndo = "pause:1"\n'
    )
    line = "rank=2 at=exchange:50 do=kill; rank=all at=start:kernels do=pause:1;"
    assert Plan.of(str(file)) == Plan.of(line)
    assert len(Plan.of(line).faults) == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("kill rank 2", "must be written 'rank=R at=EVENT:WHEN do=ACTION'"),
        ("rank=2 at=exchange:5", "exactly rank, at, do"),
        ("rank=2 at=exchange:5 do=kill when=now", "exactly rank, at, do"),
        ("rank=2 rank=3 at=exchange:5 do=kill", "name each key once"),
        ("rank=two at=exchange:5 do=kill", "rank must be"),
        ("rank=random:0 at=exchange:5 do=kill", "rank must be"),
        ("rank=2 at=lunch:5 do=kill", "at must begin with one of gradient"),
        ("rank=2 at=exchange:0 do=kill", "counted from 1"),
        ("rank=2 at=exchange:5~ do=kill", "counted from 1"),
        ("rank=2 at=exchange do=kill", "counted from 1"),
        ("rank=2 at=exchange:9-5 do=kill", "not end before it begins"),
        ("rank=2 at=start:nap do=kill", "start:topology"),
        ("rank=2 at=seconds:soon do=kill", "at=seconds must be followed by a number"),
        ("rank=2 at=seconds:2~1 do=kill", "at=seconds must be followed by a number"),
        ("rank=2 at=exchange:5 do=bite", "do must begin with one of kill"),
        ("rank=2 at=exchange:5 do=kill:3", "do=kill must have no amount"),
        ("rank=2 at=exchange:5 do=stop", "do=stop must be followed by a number"),
        ("rank=2 at=exchange:5 do=stop:inf", "do=stop must be followed by a number"),
        ("rank=2 at=gradient:5- do=slow:0.5", "a factor of at least 1"),
        ("rank=2 at=exchange:5 do=nan", "do=nan must be at one of gradient, got"),
        ("rank=2 at=seconds:5 do=raise", "do=raise must be at one of gradient, ex"),
        (
            "rank=2 at=gradient:5 do=delay:1",
            "do=delay must be at one of chunk, message",
        ),
        ("rank=2 at=gradient:5 do=full", "do=full must be at one of checkpoint"),
    ],
)
def test_bad_plans_name_the_rule_and_what_was_given(text, rule):
    with pytest.raises(ConfigError) as refused:
        Plan.of(f"rank=1 at=gradient:1 do=kill; {text}")
    assert rule in str(refused.value)
    if "=" in text:
        assert text in str(refused.value)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (None, "must be readable"),
        ("[[fault]", "not valid TOML"),
        ("rank = 1\n", "tables [[fault]] and nothing else"),
        ('[[fault]]\nrank = 1\nat = "gradient:1"\n', "exactly rank, at, do"),
    ],
)
def test_bad_files_are_named(tmp_path, content, rule):
    file = tmp_path / "plan.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        Plan.of(str(file))
    assert rule in str(refused.value)


def test_every_action_has_places():
    assert all(places and places <= set(EVENTS) for places in ACTIONS.values())
