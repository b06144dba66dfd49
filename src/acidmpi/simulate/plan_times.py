"""How long steps take: formulas for waiting, collectives and exchanges in pairs.

A step is the time in which all ranks together compute as many gradients as there are
ranks. docs/simulate.md states the model; `tests/unit/simulate/test_plan_beside_events.py`
holds it against simulated events.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.simulate.network import GradientTimes, Link
from acidmpi.topology.graph import Topology

Floats = NDArray[np.float64]

BACKWARD = 2 / 3
"""Share of a gradient's time in which gradients become ready, last layers first."""

BUSY_TRANSFERS, BUSY_LATENCIES = 2.0, 4.0
"""From one exchange to the next where one is always due: so many times its transfer and
so many latencies. Fitted to simulated rings, tori, exponential and complete graphs."""

HUB_TRANSFERS, HUB_LATENCIES = 1.0, 4.0
"""The same for a rank that many ask all the time: the middle of a star."""

ROUNDS = 400


class Shape(NamedTuple):
    """How a collective travels along the graph that the network permits."""

    name: str
    fan_out: int = 1
    """Most children of a rank in the tree."""
    depth: int = 0


ANY, RING = Shape("any"), Shape("ring")

WITH_RING = ("ring", "torus", "hypercube", "exponential", "complete")
"""Named graphs in which a ring through all ranks exists."""


def shape_of(graph: Topology) -> Shape:
    """A ring where the graph is known to hold one, else a tree from its busiest rank."""
    if graph.name in WITH_RING and graph.size > 2:
        return RING
    root = max(range(graph.size), key=graph.degree)
    depth, seen, fan_out, level = 0, {root}, 1, [root]
    while len(seen) < graph.size:
        following: list[int] = []
        for rank in level:
            fresh = [peer for peer in graph.neighbours(rank) if peer not in seen]
            seen.update(fresh)
            following += fresh
            fan_out = max(fan_out, len(fresh))
        depth, level = depth + 1, following
    return Shape("tree", fan_out, depth)


def sum_seconds(size: int, sent_bytes: float, link: Link, shape: Shape = ANY) -> float:
    """All-reduce: recursive halving and doubling, a ring, or a pipelined tree."""
    byte = 1 / link.bytes_per_second
    if shape.name == "tree":
        down = shape.fan_out * sent_bytes * byte + shape.depth * link.latency_seconds
        return 2 * down
    hops = size - 1 if shape == RING else math.ceil(math.log2(size))
    return 2 * ((size - 1) / size * sent_bytes * byte + hops * link.latency_seconds)


def gather_seconds(
    size: int, sent_bytes: float, link: Link, shape: Shape = ANY
) -> float:
    """All-gather of so many bytes of each rank."""
    if shape.name == "tree":
        return sum_seconds(size, size * sent_bytes, link, shape)
    hops = size - 1 if shape == RING else math.ceil(math.log2(size))
    sent = (size - 1) * sent_bytes / link.bytes_per_second
    return sent + hops * link.latency_seconds


def scatter_seconds(
    size: int, sent_bytes: float, link: Link, shape: Shape = ANY
) -> float:
    """All-to-all of so many bytes of each rank; on a ring they pass n/8 links each way."""
    if shape.name == "tree":
        return sum_seconds(size, size * sent_bytes, link, shape)
    far = max(1.0, size / 8) if shape == RING else 1.0
    sent = far * (size - 1) / size * sent_bytes / link.bytes_per_second
    return sent + (size - 1) * link.latency_seconds


def exposed_seconds(gradient: float, communication: float, buckets: int) -> float:
    """What sticks out when equal buckets leave as the backward pass fills them.

    Bucket k of K is full at f + k b / K, with b the backward pass, and they are sent one
    after the other, so all are through at max_k (f + k b / K + (K - k + 1) c / K).
    """
    last = communication / buckets
    return max(last, communication - BACKWARD * gradient * (1 - 1 / buckets))


def expected_slowest(times: GradientTimes, steps: int = 1) -> float:
    """Mean of the slowest rank's time of so many steps in a row."""
    means = np.array(times.means) * steps
    if times.spread == 0:
        return float(means.max())
    from scipy.special import gammainc

    shape = steps / times.spread**2
    top = float(means.max()) * (1 + 12 * times.spread / math.sqrt(steps))
    at = np.linspace(0, top, 4000)
    kinds, counts = np.unique(means, return_counts=True)
    below = np.ones_like(at)
    for mean, count in zip(kinds, counts, strict=True):
        below *= gammainc(shape, at * shape / mean) ** count
    return float(np.trapezoid(1 - below, at))


def gossip_seconds(
    times: GradientTimes, transfer: float, graph: Topology | None, seed: int = 0
) -> float:
    """Mean step of gossip in rounds, by a recursion over `ROUNDS` of them.

    Parameters travel while the gradient is computed: a step of rank i that begins at t_i
    ends at max(t_i + g_i, max over those it hears of max(t_i, t_j) + transfer).

    Args:
        times: of gradients.
        transfer: seconds of all messages of a step, latency included.
        graph: whom a rank hears in each step; None: the rank 2^k before, k going round.
        seed: of the gradients' times.
    """
    chance = np.random.default_rng([seed, 7])
    means, size = np.array(times.means), len(times.means)
    ready = np.zeros(size)
    for step in range(ROUNDS):
        heard = _heard(ready, step, graph)
        computed = ready + _draws(means, times.spread, chance)
        ready = np.maximum(computed, heard + transfer)
    return float(ready.mean()) / ROUNDS


def _heard(ready: Floats, step: int, graph: Topology | None) -> Floats:
    """When all have begun that each rank hears, itself included."""
    if graph is None:
        before = 1 << (step % (len(ready) - 1).bit_length())
        return np.maximum(ready, np.roll(ready, before))
    first, second = graph.endpoints
    latest = ready.copy()
    np.maximum.at(latest, first, ready[second])
    np.maximum.at(latest, second, ready[first])
    return latest


def pairs_intervals(
    times: GradientTimes,
    graph: Topology,
    comm_rate: float | Floats,
    transfer: float,
    link: Link,
) -> Floats:
    """Seconds from gradient to gradient, by rank, where ranks exchange in pairs beside.

    Exchanges cost nothing as long as they keep up. A rank that cannot take part in
    `comm_rate` of them per gradient of its own, for each rank the same or its own, is
    held back by `max_lag`; ranks whose only neighbour is the same one take turns with it.
    """
    busy = BUSY_TRANSFERS * transfer + BUSY_LATENCIES * link.latency_seconds
    hub = HUB_TRANSFERS * transfer + HUB_LATENCIES * link.latency_seconds
    between = np.maximum(busy, _rivals(graph) * hub)
    return np.maximum(times.means, comm_rate * between)


def step_seconds(intervals: Floats) -> float:
    """Time in which all ranks together make as many gradients as there are ranks."""
    return len(intervals) / float(np.sum(1 / intervals))


def _rivals(graph: Topology) -> Floats:
    """For a rank with one neighbour: how many have only that one, itself included."""
    ends = np.concatenate(graph.endpoints)
    others = np.concatenate(graph.endpoints[::-1])
    degree = np.bincount(ends, minlength=graph.size)
    alone = degree[ends] == 1
    hubs = np.bincount(others[alone], minlength=graph.size)
    found = np.zeros(graph.size)
    found[ends[alone]] = hubs[others[alone]]
    return found


def _draws(means: Floats, spread: float, chance: np.random.Generator) -> Floats:
    if spread == 0:
        return means
    return np.asarray(chance.gamma(spread**-2, means * spread**2))
