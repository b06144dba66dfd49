"""The comparison: one row for each group, mean ± standard deviation over its runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from acidmpi.report.groups import Group, mean_and_std, spread
from acidmpi.report.lines import first_reach, mean_of
from acidmpi.report.runs import Run

NONE = "–"

STEADY = (0.25, 0.5)
"""Between these shares of its gradients the consensus distance of a run is averaged."""


@dataclass(frozen=True)
class Column:
    """What is measured of each run."""

    name: str
    value: Callable[[Run], float | None]
    explanation: str


@dataclass(frozen=True)
class Table:
    """Cells as text."""

    header: list[str]
    rows: list[list[str]]
    words: int
    """How many columns, from the left, are words and not figures."""


def columns(target_loss: float | None, target_accuracy: float | None) -> list[Column]:
    """All that can be asked of a run; those that no run answers are not shown."""
    found = list(_COLUMNS)
    if target_loss is not None:
        found.append(
            Column(
                f"s to loss {target_loss:g}",
                lambda run: _to_loss(run, target_loss),
                "seconds of training until the training loss, averaged over a fiftieth "
                "of the run, is at or below the target",
            )
        )
    if target_accuracy is not None:
        found.append(
            Column(
                f"s to accuracy {target_accuracy:g}",
                lambda run: _to_accuracy(run, target_accuracy),
                "seconds of training until an evaluation is at or above the target",
            )
        )
    return found


def make_table(groups: Sequence[Group], asked: Sequence[Column]) -> Table:
    """One row for each group that has a finished run."""
    rows = [group for group in groups if group.finished]
    keys = list(dict.fromkeys(key for group in groups for key in group.differs))
    cells = {
        column.name: [_cell(column, group) for group in rows]
        for column in asked
        if any(spread(group, column.value) for group in rows)
    }
    names = [_word(key) for key in keys]
    return Table(
        header=[*names, "runs", *cells],
        rows=[
            [
                *(_value(group, key) for key in keys),
                str(len(group.finished)),
                *(column[number] for column in cells.values()),
            ]
            for number, group in enumerate(rows)
        ],
        words=len(names),
    )


def markdown(table: Table) -> str:
    """The table for a page in Markdown."""
    rule = ["---"] * table.words + ["---:"] * (len(table.header) - table.words)
    lines = [table.header, rule, *table.rows]
    safe = ([cell.replace("|", "\\|").replace("\n", " ") for cell in r] for r in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in safe)


def _cell(column: Column, group: Group) -> str:
    """`mean ± std`, and of how many runs where not all have it."""
    values = spread(group, column.value)
    if not values:
        return NONE
    mean, std = mean_and_std(values)
    text = number(mean, std)
    short = len(values) < len(group.finished)
    return text + (f" ({len(values)} of {len(group.finished)})" if short else "")


def number(mean: float, std: float | None) -> str:
    """`mean ± std`, both to two digits of the deviation, with a power of ten."""
    size = abs(mean) + (std or 0.0)
    if size == 0 or 1e-3 <= size < 1e6:
        return _rounded(mean, std)
    exponent = math.floor(math.log10(size))
    scale = 10.0**exponent
    text = _rounded(mean / scale, None if std is None else std / scale)
    return f"({text})e{exponent}" if std is not None else f"{text}e{exponent}"


def _rounded(mean: float, std: float | None) -> str:
    if std is None:
        return f"{mean:.4g}"
    if std == 0:
        return f"{mean:.4g} ± 0"
    places = min(max(1 - math.floor(math.log10(std)), 0), 6)
    return f"{mean:.{places}f} ± {std:.{places}f}"


def _word(key: str) -> str:
    return {"size": "ranks", "comm_rate": "rate"}.get(key, key.replace("_", " "))


def _value(group: Group, key: str) -> str:
    value = group.differs.get(key)
    if value is None:
        return NONE
    return f"{value:g}" if isinstance(value, float) else str(value)


def _summary(name: str) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        found = run.summary.get(name)
        return float(found) if isinstance(found, int | float) else None

    return value


def _by_rank(run: Run, name: str) -> list[float | None]:
    """None is what is not known, as of a rank that died."""
    found = run.summary.get(name)
    return found if isinstance(found, list) else []


def _sent(run: Run) -> float | None:
    mean = mean_of(_by_rank(run, "bytes_sent"))
    return None if mean is None else mean / 1e6


def idle_percent(run: Run) -> list[float]:
    """Share of the training time that each rank's computation waited, by rank.

    NaN is not known; all together are empty where nothing is.
    """
    seconds = run.train_seconds or math.nan
    told = _by_rank(run, "idle_seconds")
    found = [100 * (math.nan if idle is None else idle) / seconds for idle in told]
    return found if any(map(math.isfinite, found)) else []


def _steady_distance(run: Run) -> float | None:
    """Over gradients, not over heartbeats, which come unevenly."""
    curves = run.curves
    if not curves.gradients.any():
        return None
    share = curves.gradients / curves.gradients[-1]
    known = np.isfinite(curves.consensus_distance)
    known &= (share >= STEADY[0]) & (share <= STEADY[1])
    x, y = share[known], curves.consensus_distance[known]
    if len(x) < 2 or x[-1] == x[0]:  # or long gradients, with many heartbeats in one
        return None
    return float((y[1:] + y[:-1]) @ np.diff(x) / (2 * (x[-1] - x[0])))


def _to_loss(run: Run, target: float) -> float | None:
    return first_reach(run.curves, run.curves.loss, lambda y: y <= target)


def _to_accuracy(run: Run, target: float) -> float | None:
    return first_reach(
        run.curves, run.curves.test_accuracy, lambda y: y >= target - 1e-12
    )


def _train_seconds(run: Run) -> float | None:
    return run.train_seconds or None


_COLUMNS = (
    Column("test accuracy", _summary("test_accuracy"), "of the final average"),
    Column("test loss", _summary("test_loss"), "of the final average"),
    Column(
        "training loss", _summary("train_loss"), "mean of the last losses of each rank"
    ),
    Column(
        "consensus distance",
        _steady_distance,
        "mean ‖xᵢ − x̄‖² over ranks, averaged over the second quarter of the gradients: "
        "after the start, and before the learning rate falls",
    ),
    Column(
        "at the end",
        _summary("consensus_distance"),
        "consensus distance just before the final average",
    ),
    Column(
        "measured rate",
        _summary("comm_rate_measured"),
        "exchanges that a rank took part in during one mean gradient",
    ),
    Column("MB sent", _sent, "by each rank"),
    Column(
        "idle, %",
        lambda run: mean_of(idle_percent(run)),
        "of the training time, how long computations waited for communication",
    ),
    Column("seconds", _train_seconds, "of training, without start and end"),
)
