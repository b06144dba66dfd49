"""Two roles on a bipartite graph, so that every edge joins one rank of each."""

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import TopologyError
from acidmpi.topology.graph import Topology


def active_ranks(topology: Topology) -> NDArray[np.bool_]:
    """Which ranks are active: those at an even distance from rank 0.

    A connected graph has at most one such division, up to exchanging the two roles.

    Returns:
        One truth value for each rank; rank 0 is active.

    Raises:
        TopologyError: two ranks of the same role are neighbours, that is, the graph has a
            cycle of odd length.
    """
    distance = np.full(topology.size, -1)
    distance[0] = 0
    waiting = [0]
    while waiting:
        rank = waiting.pop()
        for peer in topology.neighbours(rank):
            if distance[peer] < 0:
                distance[peer] = distance[rank] + 1
                waiting.append(peer)
            elif (distance[peer] - distance[rank]) % 2 == 0:
                raise _odd_cycle(topology, rank, peer)
    return np.asarray(distance % 2 == 0)


def _odd_cycle(topology: Topology, rank: int, peer: int) -> TopologyError:
    return TopologyError(
        "active and passive ranks need a bipartite graph, one without a cycle of odd "
        f"length, but in {topology.name!r} of {topology.size} ranks one leads through "
        f"the edge {min(rank, peer), max(rank, peer)}; use path, star, grid or "
        "hypercube, or a ring of an even number of ranks"
    )
