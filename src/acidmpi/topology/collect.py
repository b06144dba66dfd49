"""From edges as a user writes them to a checked `Topology`."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from acidmpi.errors import TopologyError
from acidmpi.topology.graph import Edge, Topology


class Entry(NamedTuple):
    """One edge as given; `where` tells the user which one an error is about."""

    first: int
    second: int
    rate: float | None
    where: str


def collect(entries: Iterable[Entry], size: int, name: str) -> Topology:
    """Topology of `size` ranks from edges in any order.

    An edge may be given again, in either orientation, if it says the same. Either all
    edges carry a rate (the topology is absolute) or none does.

    Raises:
        TopologyError: for an edge, a rate or a number of ranks that cannot be used.
    """
    found: dict[Edge, Entry] = {}
    for entry in entries:
        _check_ends(entry)
        _check_rate(entry)
        edge = min(entry.first, entry.second), max(entry.first, entry.second)
        _check_repeat(found.setdefault(edge, entry), entry)
    _check_all_or_none(found.values())
    _check_size(found, size, name)
    edges = tuple(sorted(found))
    rates = [found[edge].rate for edge in edges]
    weights = tuple(1.0 if rate is None else rate for rate in rates)
    absolute = bool(edges) and None not in rates
    return Topology(size, edges, weights, name, absolute)


def _check_ends(entry: Entry) -> None:
    if min(entry.first, entry.second) < 0:
        raise TopologyError(
            f"{entry.where}: ranks count from 0, got ({entry.first}, {entry.second})"
        )
    if entry.first == entry.second:
        raise TopologyError(
            f"{entry.where}: an edge joins two ranks, got the self-loop "
            f"({entry.first}, {entry.second}); leave it out"
        )


def _check_rate(entry: Entry) -> None:
    if entry.rate is None or (math.isfinite(entry.rate) and entry.rate > 0):
        return
    raise TopologyError(
        f"{entry.where}: the rate of an edge must be positive and finite, got "
        f"{entry.rate}; leave out an edge that never exchanges"
    )


def _check_repeat(before: Entry, entry: Entry) -> None:
    if before.rate != entry.rate:
        raise TopologyError(
            f"{entry.where}: the edge ({entry.first}, {entry.second}) has the rate "
            f"{entry.rate}, but {before.rate} at {before.where}; keep one of the two"
        )


def _check_all_or_none(entries: Iterable[Entry]) -> None:
    with_rate, without = None, None
    for entry in entries:
        if entry.rate is None:
            without = entry
        else:
            with_rate = entry
    if with_rate and without:
        raise TopologyError(
            f"{without.where}: either all edges carry a rate or none does, and "
            f"{with_rate.where} has one; add the missing rates or remove all of them"
        )


def _check_size(edges: Iterable[Edge], size: int, name: str) -> None:
    needed = max((second for _, second in edges), default=0) + 1
    if needed != size:
        raise TopologyError(
            f"the graph {name!r} is one of {needed} ranks, got {size}; start {needed} "
            "ranks or use another graph"
        )
