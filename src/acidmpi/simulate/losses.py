"""`python -m acidmpi.simulate losses`: what each way of doing it wrong loses, on a ring.

Each row changes one thing of an exact run and shows what becomes of the decay of the
consensus distance by pure averaging, of the mean over ranks, and of the distance that noisy
gradients leave. Where a change needs a setting of its own to show (slow ranks, exchanges
that take time) the exact way in that setting stands above it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TextIO

from acidmpi.config.experiments import LossesConfig
from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.experiment import Result, repeat, report
from acidmpi.simulate.outcome import late_distance, median
from acidmpi.simulate.tell import number, table

TRANSFER = 0.5
"""Units that an exchange takes in the rows about overlap."""

NOISE: dict[str, Any] = {
    "workload": "quadratic",
    "lr": 1e-6,
    "noise": 1e6,
    "heterogeneity": 0.0,
}
"""Gradients that are noise and nothing else: each adds a number of standard deviation 1 to
every element, and the curvature times so small a learning rate is nothing."""


class Case(NamedTuple):
    """One row: its name, and the options that differ from the exact way."""

    name: str
    changes: dict[str, Any]


class Loss(NamedTuple):
    """What came of one row."""

    name: str
    decay: float | None
    drift: float
    noisy_distance: float | None
    noisy_drift: float
    diverged: int
    """Runs of pure averaging that did, and of noisy ones."""


def cases(config: LossesConfig) -> list[Case]:
    """The rows in the order in which they are shown."""
    slow = {
        "speeds": "stragglers",
        "stragglers": max(1, config.ranks // 4),
        "straggler_factor": config.straggler_factor,
    }
    return [
        Case("exact", {}),
        Case("no acceleration (async)", {"method": "async"}),
        Case("raw values, then mixing", {"order": "raw"}),
        Case("the authors' order", {"order": "authors"}),
        Case("last peer never, if another is there", {"rematch": 0.0}),
        Case("last peer again, 3 of 4", {"rematch": 0.75}),
        Case("last peer again, 9 of 10", {"rematch": 0.9}),
        Case(f"exchanges of {TRANSFER:g}, one at a time", {"transfer_units": TRANSFER}),
        Case(
            f"exchanges of {TRANSFER:g}, overlapped",
            {"transfer_units": TRANSFER, "overlap": True},
        ),
        Case("a quarter slow, one unit for all", slow),
        Case("a quarter slow, local units", {**slow, "local_time": True}),
        Case("constants for half the rate", {"assumed_rate": 0.5}),
        Case("constants for 1.5 times the rate", {"assumed_rate": 1.5}),
        Case("constants for twice the rate", {"assumed_rate": 2.0}),
    ]


def run(config: LossesConfig, out: TextIO) -> None:
    """Run all rows, print the table and a line of JSON."""
    losses = [_loss(config, case) for case in cases(config)]
    print(_table(config, losses), file=out, flush=True)
    report("losses", config, _results(losses), out, config.output)


def _loss(config: LossesConfig, case: Case) -> Loss:
    calm = SimulateConfig(
        ranks=config.ranks,
        units=config.units,
        dimension=config.dimension,
        **case.changes,
    )
    noisy = replace(calm, **NOISE)
    quiet, rough = repeat(calm, config.seeds), repeat(noisy, config.seeds)
    return Loss(
        case.name,
        median([o.decay() for o in quiet]),
        max(o.mean_drift for o in quiet),
        median([late_distance(o) / config.dimension for o in rough]),
        max(o.mean_drift for o in rough),
        sum(o.diverged for o in [*quiet, *rough]),
    )


def _table(config: LossesConfig, losses: Sequence[Loss]) -> str:
    head = (
        f"ring of {config.ranks}, a2cid2",
        "decay",
        "mean moved",
        "distance, noisy",
        "mean moved, noisy",
        "diverged",
    )
    rows = [
        (
            loss.name,
            number(loss.decay),
            number(loss.drift, 2),
            number(loss.noisy_distance),
            number(loss.noisy_drift, 2),
            f"{loss.diverged} of {2 * config.seeds}",
        )
        for loss in losses
    ]
    return table([head, *rows])


def _results(losses: Sequence[Loss]) -> list[Result]:
    exact = losses[0]
    found = []
    for loss in losses:
        found += [
            Result(f"decay, {loss.name}", loss.decay, "1/unit", exact.decay),
            Result(f"error of the mean, {loss.name}", loss.drift, "rms"),
            Result(
                f"noisy distance, {loss.name}",
                loss.noisy_distance,
                "",
                exact.noisy_distance,
            ),
            Result(f"error of the mean, noisy, {loss.name}", loss.noisy_drift, "rms"),
            Result(f"diverged, {loss.name}", float(loss.diverged), "runs"),
        ]
    return found
