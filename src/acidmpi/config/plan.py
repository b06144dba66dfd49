"""The options of `python -m acidmpi.simulate plan`."""

from dataclasses import dataclass
from typing import Annotated

from acidmpi.config.options import above, at_least, check_fields
from acidmpi.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """What each method and graph would cost on a cluster that you describe, best first.

    Raises:
        ConfigError: a value is not acceptable, or there is nothing to plan.
    """

    ranks: Annotated[int, at_least(1, below=4097)] = 16
    """How many ranks."""

    parameters: Annotated[int, at_least(1)] = 11_200_000
    """Numbers in the model."""

    gradient_seconds: Annotated[float, above(0)] = 0.1
    """Mean time of a gradient on a rank that is not slow."""

    gradient_spread: Annotated[float, at_least(0)] = 0.05
    """Standard deviation over mean of a gradient's time, drawn anew for each."""

    straggler_factor: Annotated[float, at_least(1)] = 1.0
    """How many times slower the slow ranks are."""

    stragglers: Annotated[int, at_least(0)] = 1
    """How many slow ranks there are, if they are slower at all."""

    gigabits_per_second: Annotated[float, above(0)] = 10.0
    """What a rank can send, and receive at the same time."""

    latency_seconds: Annotated[float, at_least(0)] = 20e-6
    """Time of a short message between two ranks."""

    graph: str = "any"
    """Who may talk to whom: any, if every rank may reach every other one directly, or
    the graph that the network permits (as --topology of acidmpi.train)."""

    comm_rate: Annotated[float, above(0)] = 1.0
    """Exchanges that a rank takes part in per mean gradient; a quarter, half and double
    of it are planned, too."""

    bytes_per_parameter: Annotated[int, at_least(2, below=9)] = 4
    """Of parameters and gradients, in memory and on the wire."""

    optimizer_numbers: Annotated[int, at_least(0)] = 1
    """Numbers of 4 bytes that the optimizer keeps for each parameter: 1 is momentum, 2
    is Adam."""

    local_steps: Annotated[int, at_least(1)] = 8
    """Steps between two averages of localsgd."""

    bucket_bytes: Annotated[int, at_least(1)] = 25 << 20
    """How many bytes of gradients allreduce sends at a time."""

    most_distance: Annotated[float, above(0)] = 10.0
    """Ways whose ranks stay further apart than so many squared updates come last: a
    caution, for what a distance costs is not known before you try."""

    compressions: str = "fp16,qsgd,acpsgd"
    """Compressions of allreduce that are planned, with commas between them; or none."""

    check: bool = False
    """Let simulated ranks follow the protocol for the best plan with pairs, and print
    the time of its step beside the formula's."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """Source of chance of --check and of random graphs."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ranks < 2:
            raise ConfigError(
                "--ranks must be at least 2 for a plan, got 1; a single rank has nobody "
                "to average with"
            )
        if self.stragglers > self.ranks:
            raise ConfigError(
                f"--stragglers must be at most --ranks, got {self.stragglers} of "
                f"{self.ranks}; choose fewer"
            )

    @property
    def message_bytes(self) -> int:
        """Of the whole model."""
        return self.parameters * self.bytes_per_parameter

    @property
    def bytes_per_second(self) -> float:
        """Bandwidth of a rank in each direction."""
        return self.gigabits_per_second * 1e9 / 8
