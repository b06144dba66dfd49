"""Who exchanges with this rank and when: the pairing machine and the demand beside it."""

from typing import Any

import numpy as np

from acidmpi.dynamics.arrivals import PoissonArrivals
from acidmpi.pairing.events import meetings_of
from acidmpi.pairing.fifo import FifoMachine
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.machine import Machine
from acidmpi.pairing.roles import RolesMachine
from acidmpi.pairing.schedule import ScheduleMachine
from acidmpi.topology.graph import Topology
from acidmpi.worker.demand import (
    Demand,
    GradientDemand,
    LogicalDemand,
    PoissonDemand,
    ScheduledDemand,
)
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.options import MAX_LAG, WorkerOptions


def make_pairing(
    options: WorkerOptions,
    topology: Topology,
    rank: int,
    units: Any,
    ledger: Ledger,
    active: bool | None,
) -> tuple[Machine, Demand]:
    """The protocol of this rank, and what makes its exchanges due.

    Args:
        options: the caller's choices.
        topology: the graph.
        rank: this rank.
        units: time.
        ledger: this rank's own counts.
        active: whether this rank asks, or None where there are no roles.
    """
    if active is not None:
        return _with_roles(options, topology, rank, units, ledger, active)
    if options.pairing == "schedule":
        return _scheduled(options, topology, rank, units)
    return _by_clock(options, topology, rank, units, ledger)


def lag_rate(options: WorkerOptions, size: int, active: bool | None) -> float:
    """Exchanges that each gradient of this rank calls for; 0: it waits for none."""
    if size == 1 or active is False:  # a passive rank cannot help itself
        return 0.0
    return options.comm_rate


def _with_roles(
    options: WorkerOptions,
    topology: Topology,
    rank: int,
    units: Any,
    ledger: Ledger,
    active: bool,
) -> tuple[Machine, Demand]:
    machine = RolesMachine(
        topology.neighbours(rank),
        topology.edge_weights(rank),
        np.random.default_rng([options.seed, rank, 0]),
        active=active,
    )
    return machine, GradientDemand(lambda: ledger.gradients, units, active)


def _by_clock(
    options: WorkerOptions, topology: Topology, rank: int, units: Any, ledger: Ledger
) -> tuple[Machine, Demand]:
    neighbours = topology.neighbours(rank)
    rate = topology.start_rate(rank, options.comm_rate)
    machine: Machine
    if options.pairing == "fifo":
        rate *= 2  # both ends of a match were due, and both count it
        machine = FifoMachine(rank, neighbours)
    else:
        chance = np.random.default_rng([options.seed, rank, 0])
        weights = topology.edge_weights(rank)
        machine = HandshakeMachine(rank, neighbours, weights, chance)
    arrivals = PoissonArrivals(rate, np.random.default_rng([options.seed, rank, 1]))
    limit = MAX_LAG if options.max_lag is None else options.max_lag
    demand = PoissonDemand(
        arrivals, units, lambda: ledger.lag(options.comm_rate), limit / 2
    )
    return machine, demand


def _scheduled(
    options: WorkerOptions, topology: Topology, rank: int, units: Any
) -> tuple[Machine, Demand]:
    """The machine and the demand follow the same list, each at its own pace."""
    lists = [
        meetings_of(rank, topology, options.comm_rate, options.seed) for _ in range(2)
    ]
    kind = LogicalDemand if options.logical else ScheduledDemand
    return ScheduleMachine(topology.neighbours(rank), lists[0]), kind(lists[1], units)
