"""The command: a page that needs nothing else, its table, and one message per mistake."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from acidmpi.report.cli import main
from acidmpi.report.groups import make_groups
from acidmpi.report.lines import line_of
from acidmpi.report.page import POLICY
from acidmpi.report.pictures import _idle_bars
from acidmpi.report.runs import read_run
from acidmpi.report.table import columns, idle_percent, make_table, markdown, number


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text, self.open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]
        assert not any(k.startswith("on") for k, _ in attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report(folder, *paths, options=()):
    return main([*map(str, paths), "--output", str(folder), *options])


@pytest.fixture
def runs(make):
    made = [make(f"runs/{m}-{s}", method=m, seed=s) for m in METHODS for s in (0, 1)]
    return made[0].parent


METHODS = ("a2cid2", "async", "allreduce")


def test_a_report_of_several_methods_and_seeds(runs, tmp_path, capsys):
    made = tmp_path / "report"
    assert report(made, runs, options=["--target-loss", "0.5"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "| a2cid2 | 2 |" in shown.out
    page = Page((made / "report.html").read_text())
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "script" not in page.tags
    assert "http" not in re.sub(r"data:image[^\"]*", "", page.text)
    names = {path.stem for path in made.glob("*.png")}
    assert {"loss-seconds", "loss-bytes", "distance", "pairs", "idle"} <= names
    assert len(page.links) == len(names)
    table = (made / "table.md").read_text()
    assert table in shown.out
    assert "s to loss 0.5" in table
    assert "0.60 ± 0.71" in table  # test losses 0.1 and 1.1


def test_unfinished_runs_are_named_drawn_and_left_out_of_the_table(
    runs, make, tmp_path, capsys
):
    make("runs/a2cid2-2", seed=2, summary=False)
    make("runs/a2cid2-3", seed=3, stop_reason="interrupted")
    assert report(tmp_path / "report", runs) == 0
    shown = capsys.readouterr()
    assert re.search(r"not finished: .*a2cid2-2: no summary", shown.err)
    assert re.search(r"not finished: .*a2cid2-3: ended early", shown.err)
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert "Not finished: 2." in page.text
    assert "| a2cid2 | 2 |" in shown.out


def test_idle_time_stays_with_its_rank_where_another_has_died(make):
    """Summaries have null for a rank that died: those behind it must not move up."""
    made = [
        make("a", idle_seconds=[0.4, None, 0.8, 1.2]),
        make("b", seed=1, idle_seconds=[0.4, 2.0, 0.8, 2.0]),
        make("c", seed=2, idle_seconds=[None] * 4),
    ]
    runs = [read_run(each) for each in made]
    assert idle_percent(runs[0]) == pytest.approx([10, np.nan, 20, 30], nan_ok=True)
    assert idle_percent(runs[2]) == []
    (group,) = make_groups(runs)
    bars = _idle_bars("", group)
    assert bars.values == pytest.approx([10, 50, 20, 40])
    half = [0, np.nan, 0, 200**0.5]
    assert bars.errors == pytest.approx(half, nan_ok=True)


def test_what_files_say_stays_text(make, tmp_path):
    evil = "<script>alert(1)</script>\"'&|\n$x$"
    a = make("a&<b>", model=evil, mpi="</style><img src=http://x/>")
    b = make("b", model="plain")
    assert report(tmp_path / "r", a, b, options=["--title", evil]) == 0
    text = (tmp_path / "r" / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert evil.split("\n")[0] in page.text
    assert all(link.startswith("data:") for link in page.links)
    assert POLICY in text
    for row in (tmp_path / "r" / "table.md").read_text().splitlines():
        assert row.startswith("| ")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "name the folder of a run"),
        (["nowhere"], 2, "there is no such folder"),
        (["a", "--titel", "x"], 2, "did you mean '--title'"),
        (["a", "--target-accuracy", "90"], 2, "--target-accuracy must be"),
        (["a", "other"], 2, "must have the same task"),
        (["spoilt"], 1, "must be a record of a run"),
        (["a", "--output", "a/config.toml"], 1, "cannot be written"),
    ],
)
def test_one_message_for_each_mistake(
    make, tmp_path, monkeypatch, capsys, arguments, status, said
):
    monkeypatch.chdir(tmp_path)
    make("a")
    make("other", task="quadratic")
    (make("spoilt") / "metrics-1.jsonl").write_text("x\n")
    assert main(arguments) == status
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_later_report_leaves_no_picture_of_an_earlier_one(make, tmp_path):
    made = tmp_path / "r"
    assert report(made, make("a")) == 0
    (made / "mine.png").write_text("")
    assert (made / "pairs.png").exists()
    assert report(made, make("b", method="allreduce")) == 0
    assert not (made / "pairs.png").exists()
    assert (made / "mine.png").exists()


def test_the_mean_over_runs_and_its_band(make):
    made = [read_run(make(str(s), seed=s, decay=0.1 * (1 + s))) for s in (0, 1)]
    (group,) = make_groups(made)
    x, y, low, high = line_of(group, lambda c: c.gradients, lambda c: c.loss)
    first, second = np.exp(-0.1 * x / 4), np.exp(-0.2 * x / 4)
    np.testing.assert_allclose(y, (first + second) / 2, rtol=0.2, atol=5e-3)
    half = np.abs(first - second) / np.sqrt(2)
    np.testing.assert_allclose(high - low, 2 * half, rtol=0.3, atol=2e-2)


def test_a_run_that_was_killed_early_does_not_shorten_the_line_of_the_others(make):
    made = [make(str(s), seed=s) for s in (0, 1)]
    made.append(make("2", seed=2, steps=4, decay=0.3, summary=False))
    (group,) = make_groups([read_run(each) for each in made])
    x, y, low, high = line_of(group, lambda c: c.gradients, lambda c: c.loss)
    assert x[-1] == 160
    late = x > 20
    np.testing.assert_allclose(y[late], np.exp(-0.1 * x[late] / 4), rtol=0.2)
    np.testing.assert_allclose(high[late], low[late])
    assert high[0] > low[0]  # there the third one counts
    (alone,) = make_groups([read_run(made[2])])
    assert line_of(alone, lambda c: c.gradients, lambda c: c.loss)[0][-1] == 16


def test_seconds_to_a_target(make):
    (group,) = make_groups([read_run(make("a", decay=0.1))])
    table = make_table([group], columns(0.5, 0.8))
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert float(cells["s to loss 0.5"]) == pytest.approx(0.7, abs=0.15)
    assert float(cells["s to accuracy 0.8"]) == pytest.approx(2.0, abs=0.05)
    never = make_table([group], columns(1e-9, None))
    assert "s to loss 1e-09" not in never.header


def test_the_consensus_distance_is_that_of_the_second_quarter(make):
    run = read_run(make("a", steps=400, decay=0.01))
    table = make_table(make_groups([run]), columns(None, None))
    found = float(table.rows[0][table.header.index("consensus distance")])
    steps = np.linspace(100, 200, 1000)
    assert found == pytest.approx(np.exp(-0.01 * steps).mean() / 10, rel=0.05)
    short = read_run(make("b", steps=4))
    assert (
        "consensus distance"
        not in make_table(make_groups([short]), columns(None, None)).header
    )


def test_a_run_of_gradients_much_longer_than_heartbeats_has_no_distance(make):
    """A second quarter in which many heartbeats came and no gradient ended."""
    folder = make("a", steps=2, size=1)
    beat = '{"schema": 1, "kind": "heartbeat", "seconds": %g, "time": 1, "gradients": 1'
    beat += ', "total_gradients": 1, "comm_rate": 1.0, "consensus_distance": 0.5}\n'
    with (folder / "metrics-0.jsonl").open("a") as file:
        file.writelines(beat % seconds for seconds in np.linspace(0.1, 0.19, 20))
    table = make_table(make_groups([read_run(folder)]), columns(None, None))
    assert "consensus distance" not in table.header


def test_a_value_that_not_all_runs_have_says_of_how_many(make):
    made = [read_run(make(str(s), seed=s, decay=0.01 + 0.2 * s)) for s in (0, 1)]
    table = make_table(make_groups(made), columns(0.5, None))
    assert table.rows[0][table.header.index("s to loss 0.5")].endswith("(1 of 2)")


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (0.1234567, None, "0.1235"),
        (0.12345, 0.0123, "0.123 ± 0.012"),
        (70.2, 16.3, "70 ± 16"),
        (2.13e-7, 2.4e-8, "(2.13 ± 0.24)e-7"),
        (3e-8, None, "3e-8"),
        (0.0, 0.0, "0 ± 0"),
        (5.0, 0.0, "5 ± 0"),
        (12345678.0, 300.0, "(1.234568 ± 0.000030)e7"),
    ],
)
def test_numbers_are_rounded_by_their_deviation(mean, std, said):
    assert number(mean, std) == said


def test_markdown_keeps_its_columns(make):
    a, b = make("a", model="x|y"), make("b", model="z")
    table = make_table(make_groups([read_run(a), read_run(b)]), columns(None, None))
    lines = markdown(table).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
