"""One way in: a name, an edge-list file, a networkx graph or a `Topology`.

networkx is used only through graphs that the caller already has (and for random
graphs), so importing this module does not import it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from acidmpi.errors import TopologyError
from acidmpi.topology.collect import Entry, collect
from acidmpi.topology.files import read_edge_list
from acidmpi.topology.graph import Topology
from acidmpi.topology.named import (
    NAMES,
    PLAIN,
    RANDOM_REGULAR,
    plain_edges,
    random_regular_edges,
)

if TYPE_CHECKING:
    import networkx

    Spec: TypeAlias = str | os.PathLike[str] | Topology | networkx.Graph


def make_topology(
    spec: "Spec", size: int, seed: int = 0, *, besides: Sequence[str] = ()
) -> Topology:
    """The communication graph that `spec` describes, over `size` ranks.

    Args:
        spec: a name (one of `NAMES`), the path of an edge-list file (a name wins over a
            file of that name; `./ring` means the file), a networkx graph whose nodes
            are 0..size-1 and whose edges may carry `rate`, or a `Topology`.
        size: number of ranks.
        seed: for random graphs; ranks that give the same one get the same graph.
        besides: names that the caller knows, for the error.

    Raises:
        TopologyError: if there is no such graph, or not over `size` ranks.
    """
    if size < 1:
        raise TopologyError(f"a graph needs at least one rank, got {size=}")
    if isinstance(spec, Topology):
        return _sized(spec, size)
    if isinstance(spec, str):
        return _from_text(spec, size, seed, (*NAMES, *besides))
    if isinstance(spec, os.PathLike):
        return read_edge_list(Path(spec), size)
    if hasattr(spec, "nodes") and hasattr(spec, "is_directed"):
        return _from_networkx(spec, size)
    raise TopologyError(
        "a topology is a name, an edge-list file, a networkx graph or a Topology, got "
        f"{type(spec).__name__}"
    )


def _sized(topology: Topology, size: int) -> Topology:
    if topology.size != size:
        raise TopologyError(
            f"the graph {topology.name!r} is one of {topology.size} ranks, got {size}; "
            f"start {topology.size} ranks or use another graph"
        )
    return topology


def _from_text(spec: str, size: int, seed: int, names: Sequence[str]) -> Topology:
    name, colon, argument = spec.partition(":")
    if name == RANDOM_REGULAR:
        edges = random_regular_edges(_degree(spec, argument), size, seed)
        return Topology.equal(size, edges, spec)
    if name in PLAIN and not colon:
        return Topology.equal(size, plain_edges(name, size), name)
    if Path(spec).exists():
        return read_edge_list(Path(spec), size)
    if name in PLAIN:
        raise TopologyError(f"{name!r} takes no argument, got {spec!r}; use {name!r}")
    raise TopologyError(
        f"a topology is one of {', '.join(names)}, or an edge-list file; {spec!r} is "
        "neither"
    )


def _degree(spec: str, argument: str) -> int:
    if argument.isdecimal():
        return int(argument)
    raise TopologyError(
        f"a random regular graph needs its degree, got {spec!r}; write for example "
        f"'{RANDOM_REGULAR}:4'"
    )


def _from_networkx(graph: Any, size: int) -> Topology:
    name = graph.name or "networkx"
    if graph.is_directed():
        raise TopologyError(
            f"exchanges go both ways, got the directed graph {name!r}; pass "
            "`graph.to_undirected()`"
        )
    nodes = graph.number_of_nodes()
    if nodes != size:
        raise TopologyError(
            f"the graph {name!r} is one of {nodes} ranks, got {size}; start {nodes} "
            "ranks or use another graph"
        )
    _check_labels(graph.nodes, size)
    return collect(_entries(graph), size, name)


def _check_labels(nodes: Any, size: int) -> None:
    for node in nodes:
        if not (isinstance(node, int | np.integer) and 0 <= node < size):
            raise TopologyError(
                f"the nodes of a graph must be the ranks 0..{size - 1}, got {node!r}; "
                "use `networkx.convert_node_labels_to_integers`"
            )


def _entries(graph: Any) -> Iterator[Entry]:
    for first, second, rate in graph.edges(data="rate"):
        where = f"edge ({first}, {second})"
        try:
            number = None if rate is None else float(rate)
        except (TypeError, ValueError) as error:
            raise TopologyError(
                f"{where}: the attribute `rate` must be a number, got {rate!r}"
            ) from error
        yield Entry(int(first), int(second), number, where)
