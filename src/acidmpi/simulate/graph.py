"""The graph of a simulation and its spectrum, computed once for all seeds."""

from dataclasses import dataclass

from acidmpi.topology import Topology, make_topology, spectrum


@dataclass(frozen=True)
class Graph:
    """Who may exchange with whom, and how fast that mixes at one exchange a unit."""

    topology: Topology
    chi_1: float
    chi_2: float


def make_graph(name: str, ranks: int, seed: int) -> Graph:
    """The graph called `name`.

    Args:
        name: as in `make_topology`.
        ranks: how many.
        seed: for random graphs.
    """
    topology = make_topology(name, ranks, seed)
    found = spectrum(topology)
    return Graph(topology, found.chi_1, found.chi_2)
