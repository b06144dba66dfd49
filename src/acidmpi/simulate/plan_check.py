"""A plan's step beside the same step in simulated events."""

import numpy as np

from acidmpi.errors import ConfigError
from acidmpi.simulate.network import Network
from acidmpi.simulate.plan_ways import Cluster, Way
from acidmpi.simulate.protocol import Floats, ProtocolSimulation
from acidmpi.simulate.protocol_members import MOST_RANKS, ProtocolOptions
from acidmpi.topology.make import make_topology

WARM_STEPS, STEPS = 40, 80
"""Steps that pass before the count, and that are counted."""


class Idle:
    """Gradients of nothing: only their time matters."""

    def update(self, rank: int, x: Floats) -> Floats:
        """Zero."""
        return np.zeros_like(x)


def check(cluster: Cluster, ranked: list[Way]) -> str:
    """The first way with pairs, its step by formula and by events, in one line.

    Raises:
        ConfigError: there are too many ranks for events.
    """
    if cluster.config.ranks > MOST_RANKS:
        raise ConfigError(
            f"--check simulates at most {MOST_RANKS} ranks, got {cluster.config.ranks}; "
            "leave it out"
        )
    way = next(way for way in ranked if way.comm_rate is not None)
    found = simulated_step(cluster, way)
    return (
        f"check: a step of {way.method} on the {way.graph} at rate {way.comm_rate:g} takes "
        f"{way.step_seconds:.4g} s by formula, {found:.4g} s in simulated events "
        f"({way.step_seconds / found - 1:+.0%})"
    )


def simulated_step(cluster: Cluster, way: Way) -> float:
    """Seconds in which all ranks together make as many gradients as there are ranks."""
    config = cluster.config
    graph = cluster.permitted or make_topology(way.graph, config.ranks, config.seed)
    assert way.comm_rate is not None
    roles = way.method == "adpsgd"
    options = ProtocolOptions(
        topology=graph,
        method="adpsgd" if roles else "async",  # the momentum takes no time
        comm_rate=1.0 if roles else way.comm_rate,
        network=Network(cluster.link),
        gradients=cluster.times,
        message_bytes=config.message_bytes,
        heartbeat_seconds=max(0.25, cluster.times.unit_seconds),
        seed=config.seed,
    )
    simulation = ProtocolSimulation(np.zeros((config.ranks, 1)), options, Idle())
    span = way.step_seconds
    lag = 0 if options.max_lag is None else options.max_lag / way.comm_rate
    warm = span * (WARM_STEPS + lag)
    first, last = simulation.run([warm, warm + STEPS * span])
    made = last.gradients - first.gradients
    return (last.seconds - first.seconds) * config.ranks / made
