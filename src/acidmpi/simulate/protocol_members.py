"""What a rank consists of in virtual time: the worker's own parts, joined without MPI.

State, ledger, tally, demand, machine and units are those of `acidmpi.worker`; see
`worker.assembly` for how real ranks are put together.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.dynamics.coefficients import BASELINE, Coefficients, acid_coefficients
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.pairing.machine import Machine
from acidmpi.pairing.schedule import ScheduleMachine
from acidmpi.simulate.network import EventQueue, GradientTimes, Network
from acidmpi.topology.graph import Topology
from acidmpi.topology.roles import active_ranks
from acidmpi.topology.spectrum import Spectrum, spectrum
from acidmpi.worker.demand import Demand
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.options import MAX_LAG, Pairing, WorkerOptions
from acidmpi.worker.partners import lag_rate, make_pairing
from acidmpi.worker.state import RankState
from acidmpi.worker.tally import Tally
from acidmpi.worker.units import WallUnits

Floats = NDArray[np.float64]

MOST_RANKS = 256


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """How the ranks of one simulated run work together.

    Raises:
        ConfigError: a value is not acceptable.
    """

    topology: Topology
    method: Literal["a2cid2", "async", "adpsgd"] = "a2cid2"
    comm_rate: float = 1.0
    pairing: Pairing = "handshake"
    max_lag: int | None = MAX_LAG
    safety: float = 1.0
    network: Network = field(default_factory=Network)
    gradients: GradientTimes | None = None
    """None: no gradient ever comes; `unit_seconds` is needed then."""
    unit_seconds: float | None = None
    """A fixed unit; None: measured by the heartbeat, as real ranks do."""
    message_bytes: float = 0.0
    """What an exchange sends each way."""
    pieces: int = 1
    """Chunks of an exchange, each with a snapshot of its own."""
    heartbeat_seconds: float = 0.25
    saturated: bool = False
    """An exchange is always due, as in `acidmpi.bench pairing`."""
    seed: int = 0

    def __post_init__(self) -> None:
        size = self.topology.size
        if not 2 <= size <= MOST_RANKS:
            raise ConfigError(
                f"the real protocol is simulated for 2 to {MOST_RANKS} ranks, got {size}"
            )
        if self.gradients is None and self.unit_seconds is None:
            raise ConfigError("without gradients time needs a unit: give unit_seconds")
        if self.gradients is not None and len(self.gradients.means) != size:
            raise ConfigError(
                f"each rank needs a time of its gradients, got "
                f"{len(self.gradients.means)} for {size} ranks"
            )
        if self.pieces < 1:
            raise ConfigError(f"an exchange has at least 1 piece, got {self.pieces}")

    def coefficients(self, rate: float) -> Coefficients:
        """Constants for a rate of exchanges."""
        if self.method != "a2cid2":
            return BASELINE
        chi_1, chi_2 = self._spectrum
        return acid_coefficients(chi_1, chi_2, self.safety, rate)

    @cached_property
    def active(self) -> tuple[bool, ...] | None:
        """Which ranks ask, where some ask and others answer.

        Raises:
            TopologyError: the graph has a cycle of odd length.
        """
        if self.method != "adpsgd":
            return None
        return tuple(active_ranks(self.topology).tolist())

    @cached_property
    def _spectrum(self) -> Spectrum:
        return spectrum(self.topology)


class Member(NamedTuple):
    """One rank."""

    rank: int
    x: Floats
    state: RankState
    units: WallUnits
    ledger: Ledger
    tally: Tally
    machine: Machine
    demand: Demand
    lag_rate: float
    """Exchanges that each of its gradients calls for."""

    def seconds_to_due(self) -> float:
        """A bound on how long no exchange becomes due; infinite without a unit."""
        unit = self.units.unit_seconds
        if unit is None:
            return math.inf
        if isinstance(self.machine, ScheduleMachine):
            return max(0.0, (self.machine.next_time - self.units.now()) * unit)
        return self.demand.seconds_to_next()

    def read(self) -> Floats:
        """A copy of x, mixed to this moment."""
        out = np.empty_like(self.x)
        for chunk in self.state.blocks:
            self.state.snapshot(chunk, out[chunk.start : chunk.stop])
        return out

    def half_sum(self) -> Floats:
        """(x + x̃)/2, which mixing does not change."""
        out = np.empty_like(self.x)
        for chunk in self.state.blocks:
            self.state.half_sum(chunk, out[chunk.start : chunk.stop])
        return out


def make_member(
    rank: int, start: Floats, options: ProtocolOptions, ration: float, clock: EventQueue
) -> Member:
    """Join the parts of one rank.

    Args:
        rank: which one.
        start: its x, copied.
        options: the run's.
        ration: theta for each exchange, see `RationedTheta`.
        clock: virtual seconds.
    """
    x = np.array(start, dtype=np.float64)
    units = WallUnits(clock, options.unit_seconds)
    ledger = Ledger(rank, options.topology.size, None)
    state = RankState([x], load("reference"), units, options.method == "a2cid2", ration)
    chosen = _worker_options(options)
    active = None if options.active is None else options.active[rank]
    machine, demand = make_pairing(
        chosen, options.topology, rank, units, ledger, active
    )
    wanted = lag_rate(chosen, options.topology.size, active)
    if options.saturated:
        _never_served(demand)
    tally = Tally(options.topology.size)
    return Member(rank, x, state, units, ledger, tally, machine, demand, wanted)


def _worker_options(options: ProtocolOptions) -> WorkerOptions:
    return WorkerOptions(
        comm_rate=options.comm_rate,
        method=options.method,
        pairing=options.pairing,
        max_lag=options.max_lag,
        safety=options.safety,
        seed=options.seed,
    )


def _never_served(demand: Any) -> None:
    """Once an exchange is due, one is due for ever."""
    demand.served = lambda: None
