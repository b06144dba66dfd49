"""`python -m acidmpi.simulate compare`: all methods on one problem, in one table."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from acidmpi.config.experiments import CompareConfig
from acidmpi.config.simulate import (
    PAIRS,
    Method,
    SimulateConfig,
    used_by_workload,
)
from acidmpi.simulate.experiment import Result, repeat, report
from acidmpi.simulate.outcome import Outcome, late_distance, median
from acidmpi.simulate.pictures import check_figure, draw_distances, draw_losses
from acidmpi.simulate.tell import number, table

METHODS: tuple[tuple[Method, float], ...] = (
    ("a2cid2", 1.0),
    ("async", 1.0),
    ("async", 2.0),
    ("gossip", 1.0),
    ("allreduce", 1.0),
    ("localsgd", 1.0),
)
"""Methods, and the exchanges a unit of those that average in pairs."""

SHARED = (
    "workload",
    "ranks",
    "units",
    "dimension",
    "noise",
    "heterogeneity",
    "dirichlet",
    "lr",
    "speeds",
    "speed_spread",
    "stragglers",
    "straggler_factor",
)
"""Options that go to each simulation as they are, where its workload uses them."""


class Score(NamedTuple):
    """One method over all seeds."""

    name: str
    outcomes: list[Outcome]

    def of(self, figure: Any) -> float | None:
        """The median over seeds of a figure of an outcome."""
        return median([figure(o) for o in self.outcomes])


def run(config: CompareConfig, out: TextIO) -> None:
    """Run all methods, print the table and a line of JSON; draw, if asked to."""
    check_figure(config.figure, config.output)
    scores = [
        Score(_name(m, rate), repeat(_options(config, m, rate), config.seeds))
        for m, rate in METHODS
    ]
    final = [score.of(_final_loss) or np.inf for score in scores]
    target = config.target_loss or max(final)
    print(_table(config, scores, target), file=out, flush=True)
    if config.figure and config.output is not None:
        lines = [(s.name, s.outcomes) for s in scores]
        title = f"{config.workload}, {config.ranks} ranks, {config.topology}"
        draw_losses(lines, title, config.output / "compare.png")
        nothing = [None] * len(lines)
        draw_distances(lines, nothing, title, config.output / "distances.png")
    report("compare", config, _results(scores, target), out, config.output)


def _options(config: CompareConfig, method: Method, rate: float) -> SimulateConfig:
    given = {name: getattr(config, name) for name in SHARED}
    shared = used_by_workload(config.workload, given)
    pairs = {"topology": config.topology, "comm_rate": rate}
    own: dict[str, Any] = pairs if method in PAIRS else {}
    return SimulateConfig(method=method, **shared, **own)


def _name(method: Method, rate: float) -> str:
    return f"{method}, rate {rate:g}" if method in PAIRS else method


def _final_loss(outcome: Outcome) -> float | None:
    return outcome.samples[-1].test_loss


def seconds_to(outcome: Outcome, loss: float) -> float | None:
    """Seconds until the test loss is first at most `loss`, at the sample that shows it."""
    for sample in outcome.samples:
        if sample.test_loss is not None and sample.test_loss <= loss:
            return sample.time * outcome.unit_seconds
    return None


def _idle(outcome: Outcome) -> float:
    """Share of the ranks' time that they waited."""
    waited = sum(t.idle_units for t in outcome.totals)
    return waited / (len(outcome.totals) * outcome.times[-1])


def _sent(outcome: Outcome) -> float:
    """Vectors that a rank sends for each gradient, in the mean."""
    length = 4 * outcome.dimension
    gradients = sum(t.gradients for t in outcome.totals)
    return sum(t.bytes_sent for t in outcome.totals) / length / max(gradients, 1)


def _seconds(outcome: Outcome) -> float:
    """Seconds of a gradient of each rank, waiting included."""
    last = outcome.samples[-1]
    each = last.gradients / len(outcome.totals)
    return last.time * outcome.unit_seconds / max(each, 1)


def _table(config: CompareConfig, scores: Sequence[Score], target: float) -> str:
    head = (
        f"{config.workload}, {config.ranks} ranks, {config.topology}",
        "test loss",
        "accuracy",
        "distance",
        f"s to loss {target:.3g}",
        "s per gradient",
        "waits",
        "vectors sent",
    )
    rows = [
        (
            score.name,
            number(score.of(_final_loss), 4),
            number(score.of(lambda o: o.samples[-1].test_accuracy)),
            number(score.of(late_distance)),
            number(score.of(lambda o: seconds_to(o, target))),
            number(score.of(_seconds)),
            f"{score.of(_idle) or 0:.1%}",
            number(score.of(_sent)),
        )
        for score in scores
    ]
    return table([head, *rows])


def _results(scores: Sequence[Score], target: float) -> list[Result]:
    found = []
    for score in scores:
        found += [
            Result(f"test loss, {score.name}", score.of(_final_loss), ""),
            Result(f"consensus distance, {score.name}", score.of(late_distance), ""),
            Result(
                f"time to loss {target:.3g}, {score.name}",
                score.of(lambda o: seconds_to(o, target)),
                "s",
            ),
            Result(f"time of a gradient, {score.name}", score.of(_seconds), "s"),
            Result(f"share of waiting, {score.name}", score.of(_idle), ""),
            Result(f"vectors sent for a gradient, {score.name}", score.of(_sent), ""),
        ]
    return found
