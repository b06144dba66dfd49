"""The pictures of a report, each with what is to be said about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from acidmpi.report.runs import Run
from acidmpi.report.table import idle_percent
from acidmpi.report.timeline import Values

MOST_LINES = 7
"""In one picture, where the options of the runs allow it."""

MOST_PANELS = 12


@dataclass(frozen=True)
class Picture:
    """One PNG."""

    name: str
    """Of its file, without ending."""

    title: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Chart:
    """A kind of line chart."""

    name: str
    title: str
    caption: str
    x: Axis
    x_label: str
    y: Axis
    y_label: str
    log_y: bool = False


BAND = "Lines are means over runs, bands one standard deviation."
LOSS = "The training loss, averaged over ranks and a fiftieth of the run. " + BAND

CHARTS = (
    Chart(
        name="loss-seconds",
        title="Training loss against time",
        caption=LOSS,
        x=lambda c: c.seconds,
        x_label="seconds of training",
        y=lambda c: c.loss,
        y_label="training loss",
    ),
    Chart(
        name="loss-gradients",
        title="Training loss against gradients",
        caption=LOSS,
        x=lambda c: c.gradients,
        x_label="gradients of all ranks",
        y=lambda c: c.loss,
        y_label="training loss",
    ),
    Chart(
        name="loss-bytes",
        title="Training loss against bytes",
        caption=LOSS + " Where a method records no exchanges, what it sent in all is "
        "spread evenly over its gradients.",
        x=lambda c: c.bytes / 1e6 if len(c.bytes) and c.bytes[-1] > 0 else c.bytes[:0],
        x_label="MB sent by all ranks",
        y=lambda c: c.loss if len(c.bytes) and c.bytes[-1] > 0 else c.loss[:0],
        y_label="training loss",
    ),
    Chart(
        name="test-seconds",
        title="Test loss against time",
        caption="The test loss of the ranks' average, where it was evaluated during "
        "the run. " + BAND,
        x=lambda c: c.seconds,
        x_label="seconds of training",
        y=lambda c: c.test_loss,
        y_label="test loss",
    ),
    Chart(
        name="accuracy-gradients",
        title="Test accuracy against gradients",
        caption="The test accuracy of the ranks' average, where it was evaluated "
        "during the run. " + BAND,
        x=lambda c: c.gradients,
        x_label="gradients of all ranks",
        y=lambda c: c.test_accuracy,
        y_label="test accuracy",
    ),
    Chart(
        name="distance",
        title="Consensus distance",
        caption="mean ‖xᵢ − x̄‖² over ranks, estimated by heartbeats. It falls with the "
        "learning rate. Lines are geometric means over runs, bands one standard "
        "deviation of the logarithm.",
        x=lambda c: c.gradients,
        x_label="gradients of all ranks",
        y=lambda c: c.consensus_distance,
        y_label="consensus distance",
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
    for chart in CHARTS:
        for number, facet in enumerate(facets):
            name = chart.name if len(facets) == 1 else f"{chart.name}-{number + 1}"
            picture = _chart(chart, facet, name, colours)
            if picture is not None:
                yield picture
    yield from _pairs(groups)
    yield from _idle(groups)


def _chart(
    chart: Chart, facet: Facet, name: str, colours: dict[str, int]
) -> Picture | None:
    lines = [
        line
        for label, group in facet.members
        if (line := _line(chart, label, group, colours[label])) is not None
    ]
    if not lines:
        return None
    title = f"{chart.title} ({facet.title})" if facet.title else chart.title
    png = line_chart(
        lines,
        title=title,
        x_label=chart.x_label,
        y_label=chart.y_label,
        log_y=chart.log_y,
    )
    return Picture(name, title, png, chart.caption)


def _line(chart: Chart, label: str, group: Group, colour: int) -> Line | None:
    x, y, low, high = line_of(group, chart.x, chart.y, log_y=chart.log_y)
    if not len(x):
        return None
    return Line(x=x, y=y, label=label, low=low, high=high, colour=colour)


def _pairs(groups: Sequence[Group]) -> Iterator[Picture]:
    having = [group for group in groups if any(_exchanges(run) for run in group.runs)]
    if not having:
        return
    shown = having[:MOST_PANELS]
    png = heat_maps(
        [HeatMap(values=_pair_rates(g), title=g.label) for g in shown],
        x_label="rank",
        y_label="rank",
        value_label="exchanges per mean gradient",
        title="Who exchanged with whom",
    )
    caption = (
        "Exchanges of each pair of ranks during one mean gradient, mean over runs."
    )
    yield Picture(
        "pairs", "Who exchanged with whom", png, caption + _left_out(having, shown)
    )


def _idle(groups: Sequence[Group]) -> Iterator[Picture]:
    having = [group for group in groups if any(idle_percent(r) for r in group.runs)]
    if not having:
        return
    shown = having[:MOST_PANELS]
    png = bar_charts(
        [_idle_bars(group) for group in shown],
        x_label="rank",
        y_label="idle, % of the training time",
        title="Idle time of each rank",
    )
    caption = (
        "How long the computation of each rank waited for communication, mean over "
    )
    caption += "runs, with the standard deviation."
    yield Picture(
        "idle", "Idle time of each rank", png, caption + _left_out(having, shown)
    )


def _idle_bars(group: Group) -> Bars:
    found = [np.array(p) for run in group.runs if (p := idle_percent(run))]
    alike = np.array([p for p in found if len(p) == len(found[0])])
    errors = alike.std(0, ddof=1) if len(alike) > 1 else None
    return Bars(values=alike.mean(0), errors=errors, title=group.label)


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


def _left_out(having: Sequence[Group], shown: Sequence[Group]) -> str:
    missing = len(having) - len(shown)
    return f" The first {len(shown)} kinds of runs; {missing} more." if missing else ""
