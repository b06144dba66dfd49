"""`python -m acidmpi.simulate theory`: pure averaging beside what theory says of it."""

import math
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from acidmpi.config.experiments import TheoryConfig
from acidmpi.config.simulate import Method, SimulateConfig
from acidmpi.simulate.course import graph_of
from acidmpi.simulate.experiment import Result, repeat, report
from acidmpi.simulate.outcome import Outcome, median
from acidmpi.simulate.pictures import check_figure, draw_growth
from acidmpi.simulate.prediction import predict
from acidmpi.simulate.tell import number, table

METHODS: tuple[Method, ...] = ("async", "a2cid2")
"""Of the slopes and times, the baseline first."""

WINDOWS = {16: (20.0, 100.0), 32: (40.0, 200.0), 64: (80.0, 400.0)}
"""Between which times the slope is fitted, by ranks on the ring."""

TYPICAL: dict[str, dict[int, float]] = {
    "async": {16: 0.077, 32: 0.0197, 64: 0.0056},
    "a2cid2": {16: 0.232, 32: 0.116, 64: 0.059},
}
"""Typical slopes as known before, from another program."""

GROWTH: dict[tuple[str, Method], float] = {
    ("ring", "async"): 2.0,
    ("ring", "a2cid2"): 1.0,
    ("complete", "async"): 0.0,
    ("complete", "a2cid2"): 0.0,
}
"""The power of the number of ranks that the time to a fixed distance grows with."""


class Slope(NamedTuple):
    """The decay on one ring with one method."""

    ranks: int
    method: Method
    measured: float | None
    mean_square: float
    drift: float

    @property
    def typical(self) -> float:
        """What was known before."""
        return TYPICAL[self.method][self.ranks]


def run(config: TheoryConfig, out: TextIO) -> None:
    """Run the experiment, print two tables and a line of JSON."""
    check_figure(config.figure, config.output)
    slopes = [_slope(config, ranks, m) for ranks in WINDOWS for m in METHODS]
    print(_slope_table(slopes), file=out, flush=True)
    growth = {pair: _times(config, *pair) for pair in GROWTH}
    print("\n" + _growth_table(config, growth), file=out, flush=True)
    if config.figure and config.output is not None:
        _draw(config, growth, config.output)
    results = [*_slope_results(slopes), *_growth_results(config, growth)]
    report("theory", config, results, out, config.output)


def _draw(config: TheoryConfig, growth: "Growth", folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw_growth(
        sizes(config.growth_up_to),
        {f"{topology}, {method}": t for (topology, method), t in growth.items()},
        {f"{topology}, {method}": p for (topology, method), p in GROWTH.items()},
        folder / "theory.png",
    )


def _slope(config: TheoryConfig, ranks: int, method: Method) -> Slope:
    since, until = WINDOWS[ranks]
    options = SimulateConfig(
        ranks=ranks, method=method, units=until, dimension=config.dimension
    )
    outcomes = repeat(options, config.seeds)
    graph = graph_of(options)
    assert graph is not None
    return Slope(
        ranks,
        method,
        median([o.decay(since) for o in outcomes]),
        predict(options, graph).mean_square or math.nan,
        max(o.mean_drift for o in outcomes),
    )


def _slope_table(slopes: Sequence[Slope]) -> str:
    head = (
        "decay on a ring",
        "measured",
        "known",
        "off by",
        "mean square",
        "mean moved",
    )
    return table(
        [
            head,
            *(
                (
                    f"{s.ranks} ranks, {s.method}",
                    number(s.measured),
                    number(s.typical),
                    f"{(s.measured or math.nan) / s.typical - 1:+.1%}",
                    number(s.mean_square),
                    number(s.drift, 2),
                )
                for s in slopes
            ),
        ]
    )


def _slope_results(slopes: Sequence[Slope]) -> list[Result]:
    found = []
    for s in slopes:
        name = f"ring {s.ranks}, {s.method}"
        found += [
            Result(f"decay, {name}", s.measured, "1/unit", s.typical),
            Result(f"decay of the mean square, {name}", s.mean_square, "1/unit"),
            Result(f"error of the mean, {name}", s.drift, "rms", 1e-12),
        ]
    return found


def sizes(largest: int) -> list[int]:
    """16, 32, 64 and so on, up to `largest`."""
    return list(takewhile(lambda n: n <= largest, (16 << k for k in range(20))))


def _times(config: TheoryConfig, topology: str, method: Method) -> list[float | None]:
    """Median units until the distance is the target's share of that at the start."""
    found = []
    for ranks in sizes(config.growth_up_to):
        options = SimulateConfig(
            ranks=ranks,
            method=method,
            topology=topology,
            units=_enough(config.target, ranks, topology, method),
            samples=400,
            dimension=config.dimension,
        )
        outcomes = repeat(options, config.growth_seeds)
        found.append(median([time_to(o, config.target) for o in outcomes]))
    return found


def _enough(target: float, ranks: int, topology: str, method: Method) -> float:
    """Units that surely suffice: 1.5 times what the mean square needs."""
    options = SimulateConfig(ranks=ranks, method=method, topology=topology)
    graph = graph_of(options)
    assert graph is not None
    decay = predict(options, graph).mean_square
    assert decay is not None
    return 1.5 * -math.log(target) / decay


def time_to(outcome: Outcome, share: float) -> float | None:
    """When the distance fell to `share` of the first, on straight lines of its log."""
    goal = math.log(share * outcome.distances[0])
    logs = np.log(np.maximum(outcome.distances, sys.float_info.min))
    below = np.flatnonzero(logs <= goal)
    if not len(below):
        return None
    k = int(below[0])
    part = (logs[k - 1] - goal) / (logs[k - 1] - logs[k])
    times = outcome.times
    return float(times[k - 1] + part * (times[k] - times[k - 1]))


def exponent(ranks: Sequence[int], times: Sequence[float | None]) -> float | None:
    """The power of `ranks` that `times` grow with, by least squares of logarithms."""
    known = [(n, t) for n, t in zip(ranks, times, strict=True) if t]
    if len(known) < 2:
        return None
    logs = np.log(np.array(known, dtype=float))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


Growth = dict[tuple[str, Method], list[float | None]]


def _growth_table(config: TheoryConfig, growth: Growth) -> str:
    ranks = sizes(config.growth_up_to)
    head = (
        f"units to a distance of {config.target:g}",
        *(f"{n} ranks" for n in ranks),
        "power",
        "theory",
    )
    return table(
        [
            head,
            *(
                (
                    f"{topology}, {method}",
                    *(number(t) for t in times),
                    number(exponent(ranks, times)),
                    number(GROWTH[topology, method]),
                )
                for (topology, method), times in growth.items()
            ),
        ]
    )


def _growth_results(config: TheoryConfig, growth: Growth) -> list[Result]:
    ranks = sizes(config.growth_up_to)
    found = []
    for (topology, method), times in growth.items():
        name = f"{topology}, {method}"
        power = exponent(ranks, times)
        limit = GROWTH[topology, method]
        found.append(Result(f"power of growth, {name}", power, "", limit))
        found += [
            Result(f"time to the target, {topology} {n}, {method}", t, "unit")
            for n, t in zip(ranks, times, strict=True)
        ]
    return found
