"""The options of the simulator's experiments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from acidmpi.config.options import above, at_least, between, check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class TheoryConfig:
    """Pure averaging on rings and complete graphs beside what theory says.

    Slopes of the log consensus distance, the mean that stays, and how the time to a fixed
    distance grows with the number of ranks.
    """

    seeds: Annotated[int, at_least(1)] = 20
    """Runs of each slope; the median counts."""

    growth_seeds: Annotated[int, at_least(1)] = 5
    """Runs of each time to a fixed distance; the median counts."""

    growth_up_to: Annotated[int, at_least(32)] = 128
    """Ranks of the largest graph whose time is taken, from 16 on in doubling steps."""

    target: Annotated[float, above(0)] = 1e-8
    """The fixed distance, over the one at the start."""

    dimension: Annotated[int, at_least(1)] = 32
    """Numbers in the vectors."""

    output: Path | None = None
    """Folder for theory.json; by default it is not kept."""

    figure: bool = False
    """Draw theory.png, the times beside theory's powers, into the folder of --output."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossesConfig:
    """What each way of doing it wrong loses, on a ring, beside the exact way.

    Each row is one option of the simulator set: the authors' order of exchanges, the last
    peer again, overlapped exchanges, local units of time, constants for the wrong rate.
    """

    ranks: Annotated[int, at_least(3)] = 64
    """Ranks on the ring."""

    units: Annotated[float, above(0)] = 400.0
    """Units of time of a run; the decay is fitted to the last four fifths."""

    seeds: Annotated[int, at_least(1)] = 5
    """Runs of each row; medians are shown."""

    dimension: Annotated[int, at_least(1)] = 32
    """Numbers in the vectors."""

    straggler_factor: Annotated[float, at_least(1)] = 3.0
    """How much slower a quarter of the ranks is where local units of time are shown."""

    output: Path | None = None
    """Folder for losses.json; by default it is not kept."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyConfig:
    """How much of the acceleration to use, given noise and delay: the default of safety.

    For each number of ranks on a ring and each duration of an exchange, the decay without
    noise, and the consensus distance and loss in the long run with noisy gradients.
    """

    largest: Annotated[int, at_least(16)] = 64
    """Ranks of the largest ring, from 16 on in doubling steps."""

    longest: Annotated[float, between(0.0, 0.5)] = 0.4
    """Longest duration of an exchange, in units; none, half of it and it are tried."""

    units: Annotated[float, above(0)] = 400.0
    """Units of time of a run."""

    seeds: Annotated[int, at_least(1)] = 5
    """Runs of each setting; medians are shown."""

    dimension: Annotated[int, at_least(1)] = 32
    """Numbers in the vectors."""

    output: Path | None = None
    """Folder for safety.json; by default it is not kept."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """All methods on one problem: losses, distances, times, bytes and waiting.

    a2cid2, async at one and at two exchanges a unit, gossip in rounds, all-reduce SGD and
    local SGD, with the same learning rate on each rank.
    """

    workload: Literal["quadratic", "digits"] = "digits"
    """A noisy quadratic function, or logistic regression on handwritten digits."""

    ranks: Annotated[int, at_least(2)] = 16
    """How many ranks."""

    topology: str = "ring"
    """The graph of a2cid2 and async, as in `acidmpi.train`."""

    units: Annotated[float, above(0)] = 200.0
    """Units of time (of a mean gradient)."""

    seeds: Annotated[int, at_least(1)] = 3
    """Runs of each method; medians are shown."""

    dimension: Annotated[int, at_least(1)] = 100
    """Numbers in the vectors of quadratic."""

    noise: Annotated[float, at_least(0)] = 0.1
    """Standard deviation of an element of a gradient (quadratic)."""

    heterogeneity: Annotated[float, at_least(0)] = 1.0
    """Standard deviation over ranks of an element of their own minima (quadratic)."""

    dirichlet: Annotated[float | None, above(0)] = None
    """Concentration of the ranks' own mixes of digits; by default all share the set."""

    lr: Annotated[float, above(0)] = 0.1
    """Learning rate of each rank."""

    speeds: Literal["constant", "random", "stragglers"] = "constant"
    """Seconds of a gradient, as in the simulation itself."""

    speed_spread: Annotated[float, above(0)] = 1.0
    """Standard deviation over mean of a gradient's seconds with random speeds."""

    stragglers: Annotated[int, at_least(1)] = 1
    """How many slow ranks there are with --speeds stragglers."""

    straggler_factor: Annotated[float, at_least(1)] = 3.0
    """How many times slower they are."""

    target_loss: Annotated[float | None, above(0)] = None
    """The test loss whose time is told; by default the largest of the final ones."""

    output: Path | None = None
    """Folder for compare.json; by default it is not kept."""

    figure: bool = False
    """Draw compare.png (losses over seconds) and distances.png into that folder."""

    def __post_init__(self) -> None:
        check_fields(self)
