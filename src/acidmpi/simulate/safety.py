"""`python -m acidmpi.simulate safety`: how much of the acceleration should be used.

On rings of several sizes, with exchanges that take no time or some, every value of `safety`
is tried on three things: the decay of the consensus distance by pure averaging, and the
distance that is left in the long run by noise alone and by ranks with minima of their own.
What a value loses in a setting is its figure over the best one there. The default should be
the value whose worst loss is least. Before that, exact moments show graphs of other kinds,
and a ring shows what noise leaves where functions bend.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TextIO

from acidmpi.config.experiments import SafetyConfig
from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.course import graph_of
from acidmpi.simulate.experiment import Result, repeat, report
from acidmpi.simulate.losses import NOISE
from acidmpi.simulate.outcome import late_distance, median
from acidmpi.simulate.prediction import Prediction, predict
from acidmpi.simulate.tell import number, table
from acidmpi.simulate.theory import sizes

VALUES = (0.0, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Of `safety`; 0 is the baseline, 1 the paper."""

SPREAD: dict[str, Any] = {"workload": "quadratic", "noise": 0.0, "lr": 0.05}
"""Gradients without noise, of ranks that disagree on the minimum."""


class Figures(NamedTuple):
    """What one value of `safety` came to in one setting."""

    decay: float | None
    noise: float | None
    """Distance of an element that noise leaves; None where ranks diverged."""

    spread: float | None
    """Distance of an element that different minima leave."""

    diverged: int


class Setting(NamedTuple):
    """A ring, and how long an exchange takes on it."""

    ranks: int
    transfer_units: float

    def __str__(self) -> str:
        return f"{self.ranks} ranks, exchanges of {self.transfer_units:g}"


Table = dict[Setting, list[Figures]]

GRAPHS = ("ring", "path", "torus", "exponential", "star", "complete")
"""Whose exact moments are shown, without delay."""

Exact = dict[str, list[Prediction]]

CURVATURES = (0.01, 0.1, 0.3)
"""Learning rate times curvature, where noise is shown on a function that bends."""

CURVED_RANKS = 16


def run(config: SafetyConfig, out: TextIO) -> None:
    """Try all values in all settings, print tables, the choice and a line of JSON."""
    exact = {name: _exact(config, name) for name in GRAPHS}
    print(_exact_table(config, exact) + "\n", file=out, flush=True)
    curved = {c: _curved(config, c) for c in CURVATURES}
    print(_curved_table(curved) + "\n", file=out, flush=True)
    found: Table = {}
    for setting in _settings(config):
        found[setting] = [_figures(config, setting, value) for value in VALUES]
        print(_setting_table(setting, found[setting]) + "\n", file=out, flush=True)
    worst = worst_losses(list(found.values()))
    print(_choice_table(worst), file=out)
    print(f"least worst loss: safety {choice(worst):g}", file=out, flush=True)
    results = [*_exact_results(exact), *_curved_results(curved)]
    results += _results(found, worst)
    report("safety", config, results, out, config.output)


def _settings(config: SafetyConfig) -> list[Setting]:
    durations = (0.0, config.longest / 2, config.longest)
    return [Setting(n, d) for n in sizes(config.largest) for d in durations]


def _exact(config: SafetyConfig, topology: str) -> list[Prediction]:
    """Theory's decay, and distance by noise, of each value on one graph."""
    shared: dict[str, Any] = {**NOISE, "dimension": 1, "topology": topology}
    options = SimulateConfig(ranks=config.largest, **shared)
    graph = graph_of(options)
    assert graph is not None
    return [predict(replace(options, safety=value), graph) for value in VALUES]


def _exact_table(config: SafetyConfig, exact: Exact) -> str:
    head = (
        f"exact, {config.largest} ranks, no delay",
        *(f"safety {value:g}" for value in VALUES),
    )
    rows = []
    for name, found in exact.items():
        rows.append((f"{name}: decay", *(number(p.mean_square) for p in found)))
        rows.append((f"{name}: distance by noise", *(number(p.noise) for p in found)))
    return table([head, *rows])


Curved = dict[float, list[float | None]]


def _curved(config: SafetyConfig, curvature: float) -> list[float | None]:
    """Distance of an element that noise of variance 1 leaves where functions bend."""
    options = SimulateConfig(
        workload="quadratic",
        ranks=CURVED_RANKS,
        units=config.units,
        dimension=config.dimension,
        lr=curvature,
        noise=1 / curvature,
        heterogeneity=0.0,
        strong_convexity=1.0,
    )
    return [
        median(
            [
                late_distance(o) / config.dimension
                for o in repeat(replace(options, safety=value), config.seeds)
            ]
        )
        for value in VALUES
    ]


def _curved_table(curved: Curved) -> str:
    head = (
        f"distance by noise, ring of {CURVED_RANKS}",
        *(f"safety {value:g}" for value in VALUES),
    )
    return table(
        [
            head,
            *(
                (f"lr x curvature {c:g}", *(number(d) for d in found))
                for c, found in curved.items()
            ),
        ]
    )


def _curved_results(curved: Curved) -> list[Result]:
    return [
        Result(f"noise, lr x curvature {c:g}, safety {value:g}", d, "")
        for c, found in curved.items()
        for value, d in zip(VALUES, found, strict=True)
    ]


def _exact_results(exact: Exact) -> list[Result]:
    return [
        Result(f"{kind}, {name}, safety {value:g}", figure, unit)
        for name, found in exact.items()
        for value, p in zip(VALUES, found, strict=True)
        for kind, figure, unit in (
            ("exact decay", p.mean_square, "1/unit"),
            ("exact noise", p.noise, ""),
        )
    ]


def _figures(config: SafetyConfig, setting: Setting, value: float) -> Figures:
    calm = SimulateConfig(
        ranks=setting.ranks,
        transfer_units=setting.transfer_units,
        safety=value,
        units=config.units,
        dimension=config.dimension,
    )
    quiet = repeat(calm, config.seeds)
    noisy = repeat(replace(calm, **NOISE), config.seeds)
    apart = repeat(replace(calm, **SPREAD), config.seeds)
    each = config.dimension
    return Figures(
        median([o.decay() for o in quiet]),
        median([late_distance(o) / each for o in noisy]),
        median([late_distance(o) / each for o in apart]),
        sum(o.diverged for o in [*quiet, *noisy, *apart]),
    )


def losses(figures: Sequence[Figures]) -> list[float]:
    """What each value loses in one setting: its worst figure over the best one there."""
    decays = [f.decay or 0.0 for f in figures]
    lost = []
    for f, decay in zip(figures, decays, strict=True):
        parts = [max(decays) / decay if decay > 0 else float("inf")]
        for kind in ("noise", "spread"):
            values = [getattr(other, kind) for other in figures]
            least = min(v for v in values if v is not None)
            own = getattr(f, kind)
            parts.append(float("inf") if own is None or f.diverged else own / least)
        lost.append(max(parts))
    return lost


def worst_losses(settings: Sequence[Sequence[Figures]]) -> list[float]:
    """The greatest loss of each value over all settings."""
    by_setting = [losses(figures) for figures in settings]
    return [max(column) for column in zip(*by_setting, strict=True)]


def choice(worst: Sequence[float]) -> float:
    """The value whose worst loss is least; of equal ones the smaller."""
    return VALUES[min(range(len(VALUES)), key=lambda k: worst[k])]


def _setting_table(setting: Setting, figures: Sequence[Figures]) -> str:
    head = (str(setting), *(f"safety {value:g}" for value in VALUES))
    rows = [
        ("decay", *(number(f.decay) for f in figures)),
        ("distance by noise", *(number(f.noise) for f in figures)),
        ("distance by own minima", *(number(f.spread) for f in figures)),
        ("runs that diverged", *(str(f.diverged) for f in figures)),
        ("loss", *(number(lost) for lost in losses(figures))),
    ]
    return table([head, *rows])


def _choice_table(worst: Sequence[float]) -> str:
    head = ("all settings", *(f"safety {value:g}" for value in VALUES))
    return table([head, ("worst loss", *(number(w) for w in worst))])


def _results(found: Table, worst: Sequence[float]) -> list[Result]:
    results = [
        Result(f"{kind}, {setting}, safety {value:g}", getattr(f, kind), unit)
        for setting, figures in found.items()
        for value, f in zip(VALUES, figures, strict=True)
        for kind, unit in (("decay", "1/unit"), ("noise", ""), ("spread", ""))
    ]
    results += [
        Result(f"worst loss, safety {value:g}", lost if lost < 1e300 else None, "")
        for value, lost in zip(VALUES, worst, strict=True)
    ]
    return [*results, Result("least worst loss", choice(worst), "safety")]
