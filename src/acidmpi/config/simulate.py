"""The options of `python -m acidmpi.simulate` and of its experiments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from acidmpi.config.options import (
    above,
    at_least,
    between,
    check_fields,
    options_of,
)
from acidmpi.errors import ConfigError

Method = Literal["a2cid2", "async", "gossip", "allreduce", "localsgd"]

PAIRS: tuple[Method, ...] = ("a2cid2", "async")
"""Methods in which peers average in pairs; in the others all ranks take steps together."""

USED_BY: dict[str, tuple[str, ...]] = {
    "topology": PAIRS,
    "comm_rate": PAIRS,
    "max_lag": PAIRS,
    "stale": PAIRS,
    "transfer_units": PAIRS,
    "overlap": PAIRS,
    "order": PAIRS,
    "rematch": PAIRS,
    "local_time": PAIRS,
    "safety": ("a2cid2",),
    "assumed_rate": ("a2cid2",),
    "local_steps": ("localsgd",),
}
"""Options that only some methods use; with others they must be left at their defaults."""

USED_BY_WORKLOAD: dict[str, tuple[str, ...]] = {
    "dimension": ("averaging", "quadratic"),
    "strong_convexity": ("quadratic",),
    "noise": ("quadratic",),
    "heterogeneity": ("quadratic",),
    "batch_size": ("digits",),
    "dirichlet": ("digits",),
    "lr": ("quadratic", "digits"),
    "momentum": ("quadratic", "digits"),
    "stale": ("quadratic", "digits"),
    "max_lag": ("quadratic", "digits"),
}
"""The same for workloads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateConfig:
    """Simulated ranks in one process, on a virtual clock.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds, or the method or the
            workload does not use an option that has been set.
    """

    workload: Literal["averaging", "quadratic", "digits"] = "averaging"
    """What the ranks do: average random vectors without any gradient, descend a noisy
    quadratic function, or learn handwritten digits by logistic regression."""

    method: Method = "a2cid2"
    """How ranks work together: a2cid2 and async average in pairs whenever it comes, with
    and without the accelerating momentum; gossip averages with one peer after each step
    (the one-peer exponential graph), allreduce all gradients in each step, localsgd all
    parameters now and then."""

    ranks: Annotated[int, at_least(1)] = 16
    """How many ranks."""

    topology: str = "ring"
    """Who may exchange with whom: ring, path, star, complete, exponential, grid, torus,
    hypercube, random-regular:DEGREE, or the path of an edge-list file."""

    comm_rate: Annotated[float, at_least(0)] = 1.0
    """Exchanges that a rank takes part in per unit of time, on average."""

    units: Annotated[float, above(0)] = 100.0
    """Units of time (of a mean gradient) that are simulated."""

    samples: Annotated[int, at_least(2)] = 100
    """How often, in that time, the ranks are looked at."""

    seeds: Annotated[int, at_least(1)] = 1
    """How many runs with seeds in a row; medians over them are printed."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """The first seed; it determines everything."""

    dimension: Annotated[int, at_least(1)] = 1000
    """Numbers in the vectors of averaging and quadratic."""

    strong_convexity: Annotated[float, between(1e-9, 1)] = 0.1
    """Smallest curvature of the quadratic function; the largest is 1."""

    noise: Annotated[float, at_least(0)] = 0.1
    """Standard deviation of an element of a gradient of the quadratic function."""

    heterogeneity: Annotated[float, at_least(0)] = 1.0
    """Standard deviation over ranks of an element of their own minima (quadratic)."""

    batch_size: Annotated[int, at_least(1)] = 16
    """Images in a gradient of digits."""

    dirichlet: Annotated[float | None, above(0)] = None
    """Gives each rank its own mix of digits, drawn from a Dirichlet distribution of this
    concentration; by default all ranks share the whole set."""

    lr: Annotated[float, above(0)] = 0.02
    """Learning rate of each rank."""

    momentum: Annotated[float, at_least(0, below=1)] = 0.0
    """Momentum of each rank's SGD."""

    speeds: Literal["constant", "random", "stragglers"] = "constant"
    """Seconds of a gradient: always the same; drawn anew for each; or the same but for a
    few slow ranks."""

    speed_spread: Annotated[float, above(0)] = 1.0
    """Standard deviation over mean of a gradient's seconds with random speeds; 1 is the
    Poisson clock of the theory."""

    stragglers: Annotated[int, at_least(1)] = 1
    """How many slow ranks there are with --speeds stragglers."""

    straggler_factor: Annotated[float, at_least(1)] = 3.0
    """How many times slower they are."""

    max_lag: Annotated[int | None, at_least(0)] = None
    """How many exchanges a rank may be behind what its own gradients call for before it
    waits; with none it never waits. Real ranks that lag start more exchanges; ideal
    edges do not, so small values make ranks wait for chance."""

    local_steps: Annotated[int, at_least(1)] = 8
    """Steps of each rank between two averages of localsgd."""

    safety: Annotated[float, between(0, 1)] = 1.0
    """How much of the acceleration of a2cid2 is used: 1 is the paper, 0 none."""

    stale: bool = True
    """Compute gradients where x was when they began, as real ranks do; --no-stale takes
    x as it is when they end, as the theory does."""

    transfer_units: Annotated[float, at_least(0)] = 0.0
    """How long an exchange takes; a rank has one at a time, unless --overlap."""

    overlap: bool = False
    """Begin exchanges while others are under way (what acidmpi never does)."""

    order: Literal["exact", "raw", "authors"] = "exact"
    """Of mixing and exchange: mix, then send what was mixed; subtract unmixed values and
    mix after; or as the authors' program, which subtracts an unmixed value from a mixed
    one."""

    rematch: Annotated[float | None, between(0, 1)] = None
    """How probable it is that a rank which starts an exchange takes its last peer again;
    by default as chance has it, with independent exchanges on each edge."""

    local_time: bool = False
    """Let each rank mix by its own time of a gradient, not by the mean of all."""

    assumed_rate: Annotated[float | None, above(0)] = None
    """The comm_rate that the constants are made for; by default the real one."""

    events: bool = False
    """Record every gradient and exchange, in one file for each rank."""

    figure: bool = False
    """Draw consensus.png, the distance over time, into the run's folder."""

    output: Path | None = None
    """The run's folder; by default runs/WORKLOAD-METHOD-TIME."""

    overwrite: bool = False
    """Use the run's folder even when it holds an earlier run."""

    def __post_init__(self) -> None:
        check_fields(self)
        _check_used(self)
        if self.speeds == "stragglers" and self.stragglers > self.ranks:
            raise ConfigError(
                f"--stragglers must be at most --ranks, got {self.stragglers} of "
                f"{self.ranks}; choose fewer"
            )


def used_by_workload(workload: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those options in `given` that `workload` uses; others would be refused."""
    return {
        name: value
        for name, value in given.items()
        if workload in USED_BY_WORKLOAD.get(name, (workload,))
    }


def _check_used(config: SimulateConfig) -> None:
    """Raise where an option has been set that method or workload would ignore."""
    for option in options_of(SimulateConfig):
        name, value = option.name, getattr(config, option.name)
        if value == option.default:
            continue
        for kind, used_by in (("method", USED_BY), ("workload", USED_BY_WORKLOAD)):
            chosen = getattr(config, kind)
            users = used_by.get(name, (chosen,))
            if chosen not in users:
                raise ConfigError(
                    f"{option.flag} is for --{kind} {' or '.join(users)}, got {value!r} "
                    f"with --{kind} {chosen}; leave it out or choose another {kind}"
                )
