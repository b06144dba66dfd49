"""The options of `python -m acidmpi.simulate protocol` and `race`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from acidmpi.config.options import above, at_least, between, check_fields
from acidmpi.config.simulate import SimulateConfig, used_by_workload


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolConfig:
    """One simulation with the real pairing protocol, over a network that takes time.

    Raises:
        ConfigError: a value is not acceptable.
    """

    workload: Literal["averaging", "quadratic", "digits"] = "averaging"
    """What the ranks do: average random vectors without any gradient, descend a noisy
    quadratic function, or learn handwritten digits by logistic regression."""

    method: Literal["a2cid2", "async"] = "a2cid2"
    """With the accelerating momentum, or without."""

    ranks: Annotated[int, at_least(1)] = 16
    """How many ranks; at most 256."""

    topology: str = "ring"
    """Who may exchange with whom, as in acidmpi.train."""

    comm_rate: Annotated[float, at_least(0)] = 1.0
    """Exchanges that a rank takes part in during one mean gradient, on average."""

    pairing: Literal["handshake", "schedule", "fifo"] = "handshake"
    """How peers find each other."""

    max_lag: Annotated[int | None, at_least(0)] = 16
    """How many exchanges communication may fall behind before the computation waits."""

    safety: Annotated[float, between(0, 1)] = 1.0
    """How much of the acceleration of a2cid2 is used."""

    units: Annotated[float, above(0)] = 100.0
    """Units of time (of a mean gradient) that are simulated."""

    samples: Annotated[int, at_least(2)] = 100
    """How often, in that time, the ranks are looked at."""

    seeds: Annotated[int, at_least(1)] = 1
    """How many runs with seeds in a row; medians over them are printed."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """The first seed; it determines everything."""

    dimension: Annotated[int, at_least(1)] = 100
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

    gradient_seconds: Annotated[float, above(0)] = 0.1
    """Mean time of a gradient on a rank that is not slow; with averaging, the unit."""

    gradient_spread: Annotated[float, at_least(0)] = 0.05
    """Standard deviation over mean of a gradient's time, drawn anew for each."""

    straggler_factor: Annotated[float, at_least(1)] = 1.0
    """How many times slower the slow ranks are."""

    stragglers: Annotated[int, at_least(0)] = 1
    """How many slow ranks there are, if they are slower at all."""

    latency_seconds: Annotated[float, at_least(0)] = 100e-6
    """Mean time from sending a short message until its receiver acts on it."""

    latency_spread: Annotated[float, at_least(0)] = 0.5
    """Standard deviation over mean of that time, drawn anew for each message."""

    gigabits_per_second: Annotated[float | None, above(0)] = None
    """What passes a link in each direction; none: any amount at once."""

    links: Path | None = None
    """File of edges that differ: lines `i j latency_seconds gigabits_per_second`."""

    parameters: Annotated[int | None, at_least(1)] = None
    """Numbers of 4 bytes that an exchange sends each way; by default those that are
    simulated. A large model's traffic can so be put beside a small one's loss."""

    pieces: Annotated[int, at_least(1)] = 1
    """Chunks of an exchange, each with a snapshot of its own."""

    saturated: bool = False
    """Let an exchange be due all the time, to see what pairing costs."""

    figure: bool = False
    """Draw consensus.png, the distance over time, into the run's folder."""

    output: Path | None = None
    """The run's folder; by default runs/WORKLOAD-METHOD-TIME."""

    overwrite: bool = False
    """Use the run's folder even when it holds an earlier run."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def bytes_per_second(self) -> float:
        """Bandwidth of a link in each direction."""
        gigabits = self.gigabits_per_second
        return float("inf") if gigabits is None else gigabits * 1e9 / 8

    def ideal(self) -> SimulateConfig:
        """The options of the same workload with ideal edges."""
        shared = {f.name for f in fields(SimulateConfig)}
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        taken = {k: v for k, v in given.items() if k in shared}
        return SimulateConfig(**used_by_workload(self.workload, taken))


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceConfig:
    """Simulated time to a fixed loss, with a straggler and a thin network.

    Methods that average in pairs follow the real protocol; beside them stand those that
    step together.

    Raises:
        ConfigError: a value is not acceptable.
    """

    workload: Literal["quadratic", "digits"] = "digits"
    """What the ranks learn."""

    ranks: Annotated[int, at_least(2, below=257)] = 16
    """How many ranks."""

    topology: str = "ring"
    """Who may exchange with whom, in pairs."""

    loss: Annotated[float | None, above(0)] = None
    """The test loss to reach; by default 0.3 for digits and 1 for quadratic."""

    steps: Annotated[int, at_least(1)] = 400
    """Steps of each rank, or as much time, after which a run gives up."""

    lr: Annotated[float, above(0)] = 0.05
    """Learning rate of each rank."""

    seeds: Annotated[int, at_least(1)] = 3
    """Runs of each; medians are printed."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """The first seed."""

    batch_size: Annotated[int, at_least(1)] = 16
    """Images in a gradient of digits."""

    dirichlet: Annotated[float | None, above(0)] = None
    """Gives each rank its own mix of digits; by default all share the whole set."""

    gradient_seconds: Annotated[float, above(0)] = 0.1
    """Mean time of a gradient on a rank that is not slow."""

    gradient_spread: Annotated[float, at_least(0)] = 0.05
    """Standard deviation over mean of a gradient's time."""

    straggler_factor: Annotated[float, at_least(1)] = 3.0
    """How many times slower one rank is, where there is a straggler."""

    parameters: Annotated[int, at_least(1)] = 11_200_000
    """Numbers of 4 bytes of the model whose traffic is simulated."""

    latency_seconds: Annotated[float, at_least(0)] = 50e-6
    """Time of a short message."""

    fast_gigabits: Annotated[float, above(0)] = 10.0
    """What a rank sends, and receives at the same time, over the fast network."""

    thin_gigabits: Annotated[float, above(0)] = 1.0
    """The same over the thin one."""

    local_steps: Annotated[int, at_least(1)] = 8
    """Steps between two averages of localsgd."""

    bucket_bytes: Annotated[int, at_least(1)] = 25 << 20
    """How many bytes of gradients allreduce sends at a time."""

    def __post_init__(self) -> None:
        check_fields(self)
