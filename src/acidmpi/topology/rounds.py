"""Who sends to whom in each step of synchronous gossip, and with which weights.

The matrices are doubly stochastic, so that a step leaves the mean over ranks where it is.

- `one-peer-exponential`: in step k each rank meets one other, at distance d = 2^(k mod τ),
  where τ = ⌈log2 n⌉. For n = 2^τ ranks, rank i and rank i XOR d swap: after τ steps every
  rank holds the mean of all, to the last bit the same one. For other n, rank i sends to
  i + d and receives from i − d, which averages in the limit only. (Ying, Yuan, Chen, Hu,
  Pan and Yin 2021 use the directed form for every n.)
- any other graph: each rank meets all its neighbours in every step, with the weights of
  Metropolis, w_ij = 1 / (1 + max(d_i, d_j)) for degrees d, the rest for itself. Rates of
  edges are not looked at.
"""

import hashlib
from typing import Any, NamedTuple

from acidmpi.topology.graph import Topology
from acidmpi.topology.make import make_topology

ONE_PEER = "one-peer-exponential"


class Round(NamedTuple):
    """One rank's part of a step."""

    targets: tuple[int, ...]
    """Ranks that this one sends to."""

    sources: tuple[int, ...]
    """Ranks that it receives from."""

    weights: tuple[float, ...]
    """Those of the sources; the rank's own is what is left of 1."""


class Rounds(NamedTuple):
    """What one rank does in step 0, 1, …; afterwards it begins again."""

    steps: tuple[Round, ...]
    """None for a rank that is alone."""

    described: str
    """The same on all ranks that have the same graph."""


def make_rounds(spec: Any, rank: int, size: int, seed: int = 0) -> Rounds:
    """The rounds of `rank` in the graph that `spec` describes.

    Args:
        spec: `one-peer-exponential`, or whatever `make_topology` takes.
        rank: this rank.
        size: number of ranks.
        seed: for random graphs.

    Raises:
        TopologyError: if there is no such graph, or not over `size` ranks.
    """
    if spec == ONE_PEER:
        return Rounds(_one_peer(rank, size), f"{ONE_PEER} over {size}")
    topology = make_topology(spec, size, seed, besides=[ONE_PEER])
    steps = (_metropolis(topology, rank),) if size > 1 else ()
    return Rounds(steps, f"a graph over {size} with edges {_digest(topology)}")


def _digest(topology: Topology) -> str:
    return hashlib.sha256(repr(topology.edges).encode()).hexdigest()[:16]


def _one_peer(rank: int, size: int) -> tuple[Round, ...]:
    distances = [1 << k for k in range((size - 1).bit_length())]
    if size & (size - 1) == 0:
        peers = [(rank ^ distance,) for distance in distances]
        return tuple(Round(peer, peer, (0.5,)) for peer in peers)
    return tuple(
        Round(((rank + distance) % size,), ((rank - distance) % size,), (0.5,))
        for distance in distances
    )


def _metropolis(topology: Topology, rank: int) -> Round:
    peers = topology.neighbours(rank)
    degree = topology.degree(rank)
    weights = [1.0 / (1 + max(degree, topology.degree(peer))) for peer in peers]
    return Round(peers, peers, tuple(weights))
