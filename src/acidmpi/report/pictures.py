"""The pictures of a report, each with what is to be said about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from acidmpi.figures.charts import (
    Bars,
    HeatMap,
    Line,
    bar_charts,
    heat_maps,
    line_chart,
)
from acidmpi.report.groups import Facet, Group, make_facets
from acidmpi.report.lines import Axis, line_of
from acidmpi.report.runs import Curves, Run
from acidmpi.report.table import idle_percent
from acidmpi.report.timeline import Values

MOST_LINES = 7
"""In one picture, where the options of the runs allow it."""

MOST_PANELS = 12

FAR = 20
"""Losses that fall by more than this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Picture:
    """One PNG."""

    name: str
    """Of its file, without ending."""

    title: str
    png: bytes
    caption: str


class Quantity(NamedTuple):
    """What of a run is on an axis."""

    label: str
    values: Axis


@dataclass(frozen=True)
class Chart:
    """A kind of line chart."""

    name: str
    title: str
    caption: str
    x: Quantity
    y: Quantity
    log_y: bool = False
    """Whether values are compared by their ratios."""


BAND = "Lines are means over runs, bands one standard deviation."
LOSS = "The training loss, averaged over ranks and a fiftieth of the run. " + BAND


def gradients(curves: Curves) -> Values:
    """Of all ranks, so far; not known where there were none."""
    return _if_any(curves.gradients)


def megabytes(curves: Curves) -> Values:
    """Sent by all ranks, so far; not known where nothing was sent."""
    return _if_any(curves.bytes / 1e6)


def _if_any(total: Values) -> Values:
    return total if total.any() else np.full_like(total, np.nan)


DISTANCE = (
    "mean ‖xᵢ − x̄‖² over ranks, estimated by heartbeats. It falls with the learning rate. "
    "Lines are geometric means over runs, bands one standard deviation of the logarithm."
)

SECONDS = Quantity("seconds of training", lambda c: c.seconds)
GRADIENTS = Quantity("gradients of all ranks", gradients)
TRAINING_LOSS = Quantity("training loss", lambda c: c.loss)
CONSENSUS_DISTANCE = Quantity("consensus distance", lambda c: c.consensus_distance)

CHARTS = (
    Chart(
        name="loss-seconds",
        title="Training loss against time",
        caption=LOSS,
        x=SECONDS,
        y=TRAINING_LOSS,
    ),
    Chart(
        name="loss-gradients",
        title="Training loss against gradients",
        caption=LOSS,
        x=GRADIENTS,
        y=TRAINING_LOSS,
    ),
    Chart(
        name="loss-bytes",
        title="Training loss against bytes",
        caption=LOSS + " Where a method records no exchanges, what it sent in all is "
        "spread evenly over its gradients.",
        x=Quantity("MB sent by all ranks", megabytes),
        y=TRAINING_LOSS,
    ),
    Chart(
        name="test-seconds",
        title="Test loss against time",
        caption="The test loss of the ranks' average, where it was evaluated during "
        "the run. " + BAND,
        x=SECONDS,
        y=Quantity("test loss", lambda c: c.test_loss),
    ),
    Chart(
        name="accuracy-gradients",
        title="Test accuracy against gradients",
        caption="The test accuracy of the ranks' average, where it was evaluated "
        "during the run. " + BAND,
        x=GRADIENTS,
        y=Quantity("test accuracy", lambda c: c.test_accuracy),
    ),
    Chart(
        name="distance",
        title="Consensus distance against gradients",
        caption=DISTANCE,
        x=GRADIENTS,
        y=CONSENSUS_DISTANCE,
        log_y=True,
    ),
    Chart(
        name="distance-seconds",
        title="Consensus distance against time",
        caption=DISTANCE,
        x=SECONDS,
        y=CONSENSUS_DISTANCE,
        log_y=True,
    ),
)

NAMES = (*(chart.name for chart in CHARTS), "pairs", "idle")
"""Of files; a number may follow."""


def make_pictures(groups: Sequence[Group]) -> Iterator[Picture]:
    """All pictures for which the runs have something to show.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    facets = make_facets(groups, MOST_LINES)
    colours: dict[str, int] = {}
    for facet in facets:
        for label, _ in facet.members:
            colours.setdefault(label, len(colours))
    endings = ["" if len(facets) == 1 else f"-{n + 1}" for n in range(len(facets))]
    for chart in CHARTS:
        for facet, ending in zip(facets, endings, strict=True):
            yield from _chart(chart, facet, ending, colours)
    for kind in (_pairs, _idle):
        for facet, ending in zip(facets, endings, strict=True):
            yield from kind(facet, ending)


def _chart(
    chart: Chart, facet: Facet, ending: str, colours: dict[str, int]
) -> Iterator[Picture]:
    lines = [
        line
        for label, group in facet.members
        if (line := _line(chart, label, group, colours[label])) is not None
    ]
    if not lines:
        return
    title = _titled(chart.title, facet)
    png = line_chart(
        lines,
        title=title,
        x_label=chart.x.label,
        y_label=chart.y.label,
        log_y=chart.log_y or (chart.y.label.endswith("loss") and _far(lines)),
    )
    yield Picture(f"{chart.name}{ending}", title, png, chart.caption)


def _far(lines: Sequence[Line]) -> bool:
    """Whether losses fall so far that a linear axis would hide their ends."""
    values = np.concatenate([np.asarray(line.y, np.float64) for line in lines])
    return bool(values.min() > 0 and values.max() > FAR * values.min())


def _line(chart: Chart, label: str, group: Group, colour: int) -> Line | None:
    x, y, low, high = line_of(group, chart.x.values, chart.y.values, log_y=chart.log_y)
    if not len(x):
        return None
    return Line(x=x, y=y, label=label, low=low, high=high, colour=colour)


def _pairs(facet: Facet, ending: str) -> Iterator[Picture]:
    having = [
        (label, group)
        for label, group in facet.members
        if any(_exchanges(run) for run in group.runs)
    ]
    if not having:
        return
    title = _titled("Who exchanged with whom", facet)
    png = heat_maps(
        [
            HeatMap(values=_pair_rates(group), title=label)
            for label, group in having[:MOST_PANELS]
        ],
        x_label="rank",
        y_label="rank",
        value_label="exchanges per mean gradient",
        title=title,
    )
    caption = (
        "Exchanges of each pair of ranks during one mean gradient, mean over runs."
    )
    yield Picture(f"pairs{ending}", title, png, caption + _left_out(len(having)))


def _idle(facet: Facet, ending: str) -> Iterator[Picture]:
    having = [
        (label, group)
        for label, group in facet.members
        if any(idle_percent(run) for run in group.runs)
    ]
    if not having:
        return
    title = _titled("Idle time of each rank", facet)
    png = bar_charts(
        [_idle_bars(label, group) for label, group in having[:MOST_PANELS]],
        x_label="rank",
        y_label="idle, % of the training time",
        title=title,
    )
    caption = (
        "How long the computation of each rank waited for communication, mean over "
    )
    caption += "runs, with the standard deviation."
    yield Picture(f"idle{ending}", title, png, caption + _left_out(len(having)))


def _titled(text: str, facet: Facet) -> str:
    return f"{text} ({facet.title})" if facet.title else text


def _idle_bars(label: str, group: Group) -> Bars:
    found = [np.array(p) for run in group.runs if (p := idle_percent(run))]
    # A rank that died has no figure in that run.
    alike = np.ma.masked_invalid([p for p in found if len(p) == len(found[0])])
    errors = alike.std(0, ddof=1).filled(np.nan) if len(alike) > 1 else None
    return Bars(values=alike.mean(0).filled(np.nan), errors=errors, title=label)


def _pair_rates(group: Group) -> Values:
    """(size, size): exchanges of each pair per mean gradient, mean over runs."""
    total = np.zeros((group.size, group.size))
    runs = [run for run in group.runs if _exchanges(run)]
    for run in runs:
        gradients = sum(rank.gradients for rank in run.ranks.values()) / run.size
        for rank, records in run.ranks.items():
            for peer, count in records.peers.items():
                if 0 <= peer < group.size:
                    total[rank, peer] += count / max(gradients, 1.0) / len(runs)
    return total


def _exchanges(run: Run) -> int:
    return sum(sum(rank.peers.values()) for rank in run.ranks.values())


def _left_out(count: int) -> str:
    more = count - MOST_PANELS
    return f" The first {MOST_PANELS} kinds of runs; {more} more." if more > 0 else ""
