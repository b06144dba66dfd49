"""Charts: what is drawn, what is left out, and what labels from files cannot do."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from acidmpi.errors import DataError
from acidmpi.figures import canvas
from acidmpi.figures.charts import (
    Bars,
    HeatMap,
    Line,
    bar_charts,
    heat_maps,
    line_chart,
)

X = np.linspace(0, 10, 50)
LABELS = {"title": "t", "x_label": "x", "y_label": "y"}


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def near(picture, colour, tolerance=12):
    """How many pixels have about this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(picture) - wanted).max(-1) <= tolerance).sum())


def test_each_line_has_a_colour_of_its_own_and_the_same_content_the_same_bytes():
    lines = [Line(x=X, y=X * (i + 1), label=f"line {i}") for i in range(4)]
    picture = line_chart(lines, **LABELS)
    for i in range(4):
        assert near(picture, canvas.COLOURS[i]) > 200
    assert near(picture, canvas.COLOURS[4]) < 20
    assert picture == line_chart(lines, **LABELS)


def test_a_band_is_drawn_between_its_edges():
    plain = Line(x=X, y=X, label="a")
    banded = Line(x=X, y=X, label="a", low=X - 1, high=X + 1)
    pale = "#d1e5f1"
    assert near(line_chart([plain], **LABELS), pale) < 200
    assert near(line_chart([banded], **LABELS), pale) > 2000


def test_a_band_that_reaches_zero_does_not_stretch_a_logarithmic_axis():
    y = np.full(50, 2.0)
    line = Line(x=X, y=y, label="a", low=y - 3, high=y + 1)
    blue = pixels(line_chart([line], log_y=True, **LABELS))[:430, 400]
    found = np.flatnonzero(np.abs(blue - [0, 0x72, 0xB2]).max(-1) < 40)
    assert 40 < found.mean() < 300  # in the middle, not pressed against the top


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_out(bad):
    y = X + 1
    y[10:20] = bad
    keep = np.isfinite(y)
    with_gap = line_chart([Line(x=X, y=y, label="a")], log_y=True, **LABELS)
    without = line_chart([Line(x=X[keep], y=y[keep], label="a")], log_y=True, **LABELS)
    assert with_gap == without


@pytest.mark.parametrize("lines", [[], [Line(x=[], y=[], label="a")]])
def test_an_empty_chart_is_a_picture_too(lines):
    assert pixels(line_chart(lines, **LABELS)).size


@pytest.mark.parametrize(
    "label",
    ["$x^{$", "_hidden", "a\nb", "\\", "\\$", "$\\frac$", "<b>", "漢字", "", "{}%s"],
)
def test_labels_are_text_and_nothing_else(label):
    line = Line(x=X, y=X, label=label)
    picture = line_chart([line], title=label, x_label="x", y_label="y")
    assert near(picture, canvas.COLOURS[0]) > 200
    heat_maps(
        [HeatMap(values=[[1]], title=label)], value_label="v", x_label="", y_label=""
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_titles_are_not_cut_off_by_the_edge_of_a_picture(count):
    """A report's say which of several pictures of one kind this one is."""
    title = "Consensus distance against gradients"
    title += " (128 ranks, network 100gbit, fault one straggler, hypercube)"
    words = {"x_label": "rank", "y_label": "s", "title": title}
    bars = [Bars(values=[1], title="")] * count
    maps = [HeatMap(values=[[1]], title="")] * count
    for picture in (
        line_chart([Line(x=X, y=X, label="a")] * count, **words),
        bar_charts(bars, **words),
        heat_maps(maps, value_label="v", **words),
    ):
        assert (pixels(picture)[:, -2:] == 255).all()


def test_a_label_beginning_with_an_underscore_is_in_the_legend():
    drawn = line_chart([Line(x=X, y=X, label="_name")], **LABELS)
    blank = line_chart([Line(x=X, y=X, label=" ")], **LABELS)
    ink = [(pixels(p)[-40:].sum(-1) < 300).sum() for p in (drawn, blank)]
    assert ink[0] > ink[1] + 20


def test_heat_maps_share_one_scale_that_begins_at_zero():
    full, half = np.full((4, 4), 2.0), np.full((4, 4), 1.0)
    both = [HeatMap(values=full, title="a"), HeatMap(values=half, title="b")]
    words = {"x_label": "rank", "y_label": "rank", "value_label": "v"}
    picture = heat_maps(both, **words)
    dark, medium = "#08306b", "#6aaed6"
    assert near(picture, dark) > 10_000
    assert near(picture, medium) > 10_000
    alone = heat_maps(both[1:], **words)
    assert near(alone, dark) > 10_000


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_panels_make_rows(count):
    bars = [Bars(values=[1, 2, 3], title=str(i)) for i in range(count)]
    height, width, _ = pixels(bar_charts(bars, x_label="rank", y_label="s")).shape
    one = pixels(bar_charts(bars[:1], x_label="rank", y_label="s")).shape
    assert (height > 1.5 * one[0]) == (count > 3)
    assert width <= 3 * one[1]


def test_bars_with_names_and_errors():
    bars = Bars(values=[1, np.nan], errors=[0.1, np.nan], names=["a$", "_b"], title="")
    assert near(bar_charts([bars], x_label="", y_label="s"), canvas.COLOURS[0]) > 5000


def test_a_picture_is_saved_whole_and_a_folder_that_cannot_be_made_is_told(tmp_path):
    canvas.save(b"png", tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep" / "a.png").read_bytes() == b"png"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"picture .*file/a\.png cannot be written"):
        canvas.save(b"png", tmp_path / "file" / "a.png")


def test_without_matplotlib_one_message_tells_the_cure():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from acidmpi.errors import ConfigError\n"
        "from acidmpi.figures.charts import line_chart\n"
        "try: line_chart([], title='', x_label='', y_label='')\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'acidmpi[report]'" in done.stdout


def test_the_settings_of_a_program_that_draws_itself_are_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    line_chart([Line(x=X, y=X, label="a")], **LABELS)
    assert dict(matplotlib.rcParams) == before


def test_a_long_title_of_a_panel_takes_two_lines_and_no_more():
    text = "allreduce, network 1gbit, fault rank=1 at=gradient:1- do=slow:3, and more"
    lines = canvas.in_lines(text, 32).split("\n")
    assert len(lines) == 2
    assert all(len(line) <= 34 for line in lines)
    assert lines[1].endswith("…")
    assert canvas.in_lines("short", 32) == "short"
    assert canvas.in_lines("", 32) == ""
