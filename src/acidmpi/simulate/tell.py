"""Results as text: tables for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.graph import Graph
from acidmpi.simulate.outcome import Outcome, median
from acidmpi.simulate.prediction import predict

Row = Sequence[str]


def number(value: float | None, digits: int = 3) -> str:
    """`value` in few digits; a dash where it is not known."""
    return "-" if value is None else f"{value:.{digits}g}"


def table(rows: Sequence[Row]) -> str:
    """Rows of words in columns, the first row above a line; numbers to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(
            word.ljust(width) if k == 0 else word.rjust(width)
            for k, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def tell_run(
    config: SimulateConfig,
    graph: Graph | None,
    outcomes: Sequence[Outcome],
    where: Path,
    out: TextIO,
) -> None:
    """Print what a run came to, predicted rates beside measured ones."""
    rows = [
        (
            f"{config.workload}, {config.method}, {config.ranks} ranks",
            "predicted",
            "measured",
        ),
        *_rates(config, graph, outcomes),
        *_results(outcomes),
        ("folder", "", str(where)),
    ]
    print(table(rows), file=out, flush=True)


def _rates(
    config: SimulateConfig, graph: Graph | None, outcomes: Sequence[Outcome]
) -> list[Row]:
    if graph is None:
        return []
    expected = predict(config, graph)
    rows: list[Row] = [
        (
            "exchanges per rank and unit",
            number(config.comm_rate),
            number(median([o.comm_rate for o in outcomes])),
        )
    ]
    if config.workload == "averaging":
        decays = median([o.decay() for o in outcomes])
        rows += [
            ("decay of the distance, mean square", number(expected.mean_square), "-"),
            ("decay of the distance, typical", "-", number(decays)),
            ("decay in the proof", number(expected.proven), "-"),
        ]
    if config.workload == "quadratic":
        rows.append(("distance by noise alone", number(expected.noise), "-"))
    return rows


def _results(outcomes: Sequence[Outcome]) -> list[Row]:
    last = [o.samples[-1] for o in outcomes]
    diverged = sum(o.diverged for o in outcomes)
    gradients = [t.gradients for o in outcomes for t in o.totals]
    idle = max(t.idle_units for o in outcomes for t in o.totals)
    rows: list[Row] = [
        ("units of time", "", number(median([s.time for s in last]), 4)),
        ("seconds of a unit", "", number(outcomes[0].unit_seconds)),
        ("gradients of a rank", "", f"{min(gradients)} to {max(gradients)}"),
        ("units waited, at most", "", number(idle)),
        (
            "consensus distance",
            "",
            number(median([s.consensus_distance for s in last])),
        ),
        ("error of the mean", "", number(max(o.mean_drift for o in outcomes))),
        ("training loss", "", number(median([o.train_loss for o in outcomes]))),
        ("test loss", "", number(median([s.test_loss for s in last]))),
        ("test accuracy", "", number(median([s.test_accuracy for s in last]))),
    ]
    if diverged:
        rows.append(("diverged", "", f"{diverged} of {len(outcomes)} runs"))
    return rows
