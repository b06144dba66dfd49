"""The ways to train that a plan compares, each with what it costs."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.config.plan import PlanConfig
from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.errors import TopologyError
from acidmpi.simulate.network import GradientTimes, Link
from acidmpi.simulate.plan_bytes import reduce_seconds, sent_by, sent_bytes
from acidmpi.simulate.plan_distance import (
    local_distance,
    lockstep_distance,
    metropolis_distance,
    stationary_distance,
)
from acidmpi.simulate.plan_times import (
    ANY,
    Shape,
    expected_slowest,
    exposed_seconds,
    gossip_seconds,
    pairs_intervals,
    shape_of,
    step_seconds,
    sum_seconds,
)
from acidmpi.topology.graph import Topology
from acidmpi.topology.make import make_topology
from acidmpi.topology.roles import active_ranks
from acidmpi.topology.spectrum import spectrum

GRAPHS = ("ring", "torus", "exponential", "complete")
"""Planned where any two ranks may talk."""

RATES = (0.25, 0.5, 1.0, 2.0)
"""Planned shares of the asked rate of exchanges."""

DENSE_UP_TO = 512
"""Ranks up to which the complete graph, with n²/2 edges, is one of them."""

STAGING_BYTES = 3 << 20
"""Chunks of an exchange under way: see `worker.exchange`."""

NO_REMATCH = 0.8
"""The handshake leaves out a rank's last peer; over its mean number of neighbours, by so
much the ranks stay nearer together than with independent exchanges. Fitted to simulated
rings, tori, exponential and complete graphs."""


class Way(NamedTuple):
    """One method on one graph."""

    method: str
    graph: str
    """Empty where all ranks step together."""
    comm_rate: float | None
    step_seconds: float
    """Time in which all ranks together make as many gradients as there are ranks."""
    waiting_seconds: float
    """Part of it that goes to waiting for slower ranks."""
    exposed_seconds: float
    """Part of it in which nothing but communication happens."""
    sent_bytes: float
    """By one rank in a step."""
    memory_bytes: float
    """Parameters, gradients, optimizer, and what the method adds."""
    distance: float
    """Consensus distance over the mean square of an update; NaN where gradients are
    lossy instead."""
    exact: bool = False
    """Whether it is SGD on the mean gradient, to rounding."""
    lopsided: bool = False
    """Whether communication holds some ranks up and others not."""


class Cluster(NamedTuple):
    """What a plan is about, in the terms of the formulas."""

    config: PlanConfig
    times: GradientTimes
    link: Link
    permitted: Topology | None
    """The network's graph; None if any two ranks may talk."""

    @classmethod
    def of(cls, config: PlanConfig) -> "Cluster":
        """The cluster that the options describe.

        Raises:
            TopologyError: there is no such graph over so many ranks.
        """
        free = config.graph == "any"
        slow = config.stragglers if config.straggler_factor > 1 else 0
        times = GradientTimes.of(
            config.ranks,
            config.gradient_seconds,
            spread=config.gradient_spread,
            straggler=config.straggler_factor,
            stragglers=slow,
        )
        graph = None if free else make_topology(config.graph, config.ranks, config.seed)
        link = Link(config.latency_seconds, config.bytes_per_second)
        return cls(config, times, link, graph)

    @property
    def shape(self) -> Shape:
        """How collectives travel."""
        return ANY if self.permitted is None else shape_of(self.permitted)

    @property
    def transfer_seconds(self) -> float:
        """Time of the whole model over one link."""
        return self.config.message_bytes / self.link.bytes_per_second

    @property
    def memory_bytes(self) -> float:
        """Parameters, gradients and optimizer."""
        each = 2 * self.config.bytes_per_parameter + 4 * self.config.optimizer_numbers
        return float(self.config.parameters * each)

    @property
    def buckets(self) -> int:
        """Messages of an all-reduce."""
        return max(1, -(-self.config.message_bytes // self.config.bucket_bytes))

    def graphs(self) -> Iterator[Topology]:
        """Where ranks may average in pairs."""
        if self.permitted is not None:
            yield self.permitted
            return
        size = self.config.ranks
        names = [g for g in GRAPHS if g != "complete" or size <= DENSE_UP_TO]
        seen = set()
        for graph in (make_topology(name, size) for name in names):
            if graph.edges not in seen:
                seen.add(graph.edges)
                yield graph


def ways(cluster: Cluster) -> list[Way]:
    """All that is planned, in no particular order."""
    config = cluster.config
    found = [_allreduce(cluster), _local(cluster), _gossip(cluster)]
    found += [_compressed(cluster, name) for name in _names(config.compressions)]
    found += [
        _pairs(cluster, graph, method, share * config.comm_rate)
        for graph in cluster.graphs()
        for share in RATES
        for method in ("a2cid2", "async")
    ]
    return found + [_roles(cluster, graph) for graph in _bipartite(cluster)]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name and name != "none"]


def _allreduce(cluster: Cluster) -> Way:
    config, size = cluster.config, cluster.config.ranks
    whole = cluster.buckets * sum_seconds(
        size, config.message_bytes / cluster.buckets, cluster.link, cluster.shape
    )
    sent = 2 * (size - 1) / size * config.message_bytes
    return _synchronous(cluster, "allreduce", whole, sent, 0.0)._replace(
        distance=0.0, exact=True
    )


def _compressed(cluster: Cluster, name: str) -> Way:
    config, size = cluster.config, cluster.config.ranks
    sent = sent_by(name, size)
    whole = reduce_seconds(sent, config.parameters, size, cluster.link, cluster.shape)
    volume = sent_bytes(sent, config.parameters, size)
    kept = sent.state_bytes * config.parameters
    return _synchronous(cluster, f"allreduce, {name}", whole, volume, kept)


def _synchronous(
    cluster: Cluster, method: str, whole: float, sent: float, kept: float
) -> Way:
    slowest = expected_slowest(cluster.times)
    exposed = exposed_seconds(slowest, whole, cluster.buckets)
    extra = min(2 * cluster.config.bucket_bytes, cluster.config.message_bytes)
    return Way(
        method=method,
        graph="",
        comm_rate=None,
        step_seconds=slowest + exposed,
        waiting_seconds=slowest - cluster.times.unit_seconds,
        exposed_seconds=exposed,
        sent_bytes=sent,
        memory_bytes=cluster.memory_bytes + extra + kept,
        distance=float("nan"),
    )


def _local(cluster: Cluster) -> Way:
    config, size, steps = (
        cluster.config,
        cluster.config.ranks,
        cluster.config.local_steps,
    )
    slowest = expected_slowest(cluster.times, steps) / steps
    whole = sum_seconds(size, config.message_bytes, cluster.link, cluster.shape) / steps
    return Way(
        method=f"localsgd, {steps} steps",
        graph="",
        comm_rate=None,
        step_seconds=slowest + whole,
        waiting_seconds=slowest - cluster.times.unit_seconds,
        exposed_seconds=whole,
        sent_bytes=2 * (size - 1) / size * config.message_bytes / steps,
        memory_bytes=cluster.memory_bytes,
        distance=local_distance(size, steps),
        exact=steps == 1,
    )


def _gossip(cluster: Cluster) -> Way:
    """With one peer where any two ranks may talk, else with all neighbours."""
    config, graph = cluster.config, cluster.permitted
    heard = 1 if graph is None else max(map(graph.degree, range(graph.size)))
    transfer = heard * cluster.transfer_seconds + cluster.link.latency_seconds
    waiting = gossip_seconds(cluster.times, 0.0, graph, config.seed)
    step = gossip_seconds(cluster.times, transfer, graph, config.seed)
    far = lockstep_distance(config.ranks)
    return Way(
        method="gossip",
        graph="one-peer-exponential" if graph is None else graph.name,
        comm_rate=None,
        step_seconds=step,
        waiting_seconds=waiting - cluster.times.unit_seconds,
        exposed_seconds=step - waiting,
        sent_bytes=heard * config.message_bytes,
        memory_bytes=cluster.memory_bytes + (1 + heard) * config.message_bytes,
        distance=far if graph is None else metropolis_distance(graph),
    )


def _pairs(cluster: Cluster, graph: Topology, method: str, rate: float) -> Way:
    tilde = 4 * cluster.config.parameters if method == "a2cid2" else 0
    way = _beside(cluster, graph, method, rate, _intervals(cluster, graph, rate))
    return way._replace(
        memory_bytes=way.memory_bytes + tilde, distance=_distance(graph, method, rate)
    )


def _bipartite(cluster: Cluster) -> Iterator[Topology]:
    """The graphs on which some ranks may ask and others answer."""
    for graph in cluster.graphs():
        with suppress(TopologyError):
            active_ranks(graph)
            yield graph


def _roles(cluster: Cluster, graph: Topology) -> Way:
    """AD-PSGD: each gradient of a rank that asks calls for one exchange."""
    active = active_ranks(graph)
    intervals = _intervals(cluster, graph, np.where(active, 1.0, 0.0))
    asked = np.where(active, 1 / intervals, 0.0)
    rate = 2 * float(asked.sum() / np.sum(1 / intervals))
    # A rank draws among its neighbours evenly, the last one included.
    draws = asked / [graph.degree(rank) for rank in range(graph.size)]
    weights = tuple(float(draws[i] + draws[j]) for i, j in graph.edges)
    edges = replace(graph, weights=weights, absolute=True)
    # Ranks that ask do so regularly: their last exchange is half as old as by chance.
    nearer = 1 - float(active.mean()) / 2
    way = _beside(cluster, graph, "adpsgd", rate, intervals)
    return way._replace(
        distance=nearer * stationary_distance(edges, rate, BASELINE),
        lopsided=bool(np.any(intervals > cluster.times.means)),
    )


def _intervals(
    cluster: Cluster, graph: Topology, rate: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    return pairs_intervals(
        cluster.times, graph, rate, cluster.transfer_seconds, cluster.link
    )


def _beside(
    cluster: Cluster,
    graph: Topology,
    method: str,
    rate: float,
    intervals: NDArray[np.float64],
) -> Way:
    """Exchanges in pairs beside gradients, whatever makes them due."""
    step = step_seconds(intervals)
    return Way(
        method=method,
        graph=graph.name,
        comm_rate=rate,
        step_seconds=step,
        waiting_seconds=0.0,
        exposed_seconds=step - cluster.times.unit_seconds,
        sent_bytes=rate * cluster.config.message_bytes,
        memory_bytes=cluster.memory_bytes + STAGING_BYTES,
        distance=float("nan"),
    )


def _distance(graph: Topology, method: str, rate: float) -> float:
    constants = BASELINE
    if method == "a2cid2":
        constants = acid_coefficients(*spectrum(graph), rate=rate)
    ideal = stationary_distance(graph, rate, constants)
    degree = 2 * len(graph.edges) / graph.size
    nearer = 1 - NO_REMATCH / degree if degree > 1 else 1.0
    return ideal * nearer
