"""A connected, undirected graph of ranks and the rates at which its edges exchange.

Guarantees of every `Topology` that exists:
- edges are pairs i < j of ranks in range, sorted, each once;
- weights are positive and finite, one for each edge;
- every rank can be reached from every other one; dead ranks (see `repair`) have no
  edges, keep their numbers, and count in no mean.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import ConfigError, TopologyError

Edge = tuple[int, int]
Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class _Adjacency(NamedTuple):
    """Compressed rows: row `i` is `starts[i]:starts[i + 1]` of the other arrays."""

    starts: Integers
    neighbours: Integers
    weights: Floats


@dataclass(frozen=True)
class Topology:
    """Which ranks may exchange, and in which proportions.

    Two readings of the weights (`r` is the asked `comm_rate`, the mean number of
    exchanges a rank takes part in per unit of time):

    - relative (`absolute=False`): every rank starts r/2 exchanges a unit and draws the
      neighbour in proportion to the weights of its own edges;
    - absolute: edges exchange in proportion to the weights, scaled so that the mean
      over ranks is `r`; a rank starts half of the exchanges of each of its edges.

    In both, a rank starts `start_rate(rank, r)` a unit and draws from
    `neighbours(rank)` with probabilities proportional to `edge_weights(rank)`.
    """

    size: int
    edges: tuple[Edge, ...]
    weights: tuple[float, ...]
    name: str
    absolute: bool = False
    dead: tuple[int, ...] = ()
    """Ranks without edges, in increasing order; `repair.repaired` makes such graphs."""
    whole: "Topology | None" = None
    """The graph before any death, where this one has been repaired."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise TopologyError(
                f"a graph needs at least one rank, got size={self.size}"
            )
        _check_dead(self.size, self.dead)
        _check_edges(self.size, *self.endpoints)
        _check_weights(self.edges, self.weights)
        self._check_connected()

    @classmethod
    def equal(
        cls, size: int, edges: Iterable[Sequence[int]] | Integers, name: str
    ) -> "Topology":
        """A graph of equal weights from edges in any order, orientation and number."""
        pairs = np.asarray(edges if isinstance(edges, np.ndarray) else list(edges))
        pairs = np.sort(pairs.astype(np.intp).reshape(-1, 2), axis=1)
        if pairs.min(initial=0) < 0:
            raise TopologyError(f"ranks count from 0, got an edge with {pairs.min()}")
        base = pairs.max(initial=0) + 1
        places = np.sort(pairs[:, 0] * base + pairs[:, 1])
        first, second = divmod(places[np.diff(places, prepend=-1) > 0], base)
        ordered = tuple(zip(first.tolist(), second.tolist(), strict=True))
        return cls(size, ordered, (1.0,) * len(ordered), name)

    @cached_property
    def survivors(self) -> Integers:
        """The ranks that are not dead, in increasing order."""
        return np.delete(np.arange(self.size), np.array(self.dead, dtype=np.intp))

    def neighbours(self, rank: int) -> tuple[int, ...]:
        """The ranks that `rank` may exchange with, in increasing order."""
        return tuple(self._adjacency.neighbours[self._row(rank)].tolist())

    def degree(self, rank: int) -> int:
        """How many neighbours `rank` has."""
        return len(self.neighbours(rank))

    def edge_weights(self, rank: int) -> tuple[float, ...]:
        """Draw weights of `rank`, aligned with `neighbours(rank)`."""
        return tuple(self._adjacency.weights[self._row(rank)].tolist())

    def start_rate(self, rank: int, comm_rate: float) -> float:
        """Exchanges that `rank` itself starts per unit of time."""
        _check_comm_rate(comm_rate)
        if not self.neighbours(rank):
            return 0.0
        if not self.absolute:
            return comm_rate / 2
        share = self._strengths[rank] / self._strengths.sum()
        return float(comm_rate / 2 * self.survivors.size * share)

    def rates(self, comm_rate: float) -> Floats:
        """Exchanges per unit of time on each edge, aligned with `edges`."""
        _check_comm_rate(comm_rate)
        weights, strengths = self._scaled_weights, self._strengths
        if not weights.size:
            return weights
        if self.absolute:
            total = comm_rate * self.survivors.size
            return weights * (total / float(strengths.sum()))
        first, second = self.endpoints
        share = weights / strengths[first] + weights / strengths[second]
        return comm_rate / 2 * share

    @cached_property
    def endpoints(self) -> tuple[Integers, Integers]:
        """The lower and the higher rank of every edge, as arrays."""
        flat = np.fromiter(chain.from_iterable(self.edges), dtype=np.intp)
        return flat[::2].copy(), flat[1::2].copy()

    @cached_property
    def _scaled_weights(self) -> Floats:
        """The weights over the largest one, so that no sum of them can overflow."""
        weights = np.asarray(self.weights, dtype=np.float64)
        return np.asarray(weights / weights.max(initial=sys.float_info.min))

    @cached_property
    def _strengths(self) -> Floats:
        """Sum of the scaled weights of each rank's edges."""
        ends = np.concatenate(self.endpoints)
        weights = np.tile(self._scaled_weights, 2)
        sums = np.bincount(ends, weights, minlength=self.size)
        return np.asarray(sums, dtype=np.float64)

    @cached_property
    def _adjacency(self) -> _Adjacency:
        first, second = self.endpoints
        source = np.concatenate([first, second])
        target = np.concatenate([second, first])
        order = np.lexsort((target, source))
        counts = np.bincount(source, minlength=self.size)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        weights = np.tile(np.asarray(self.weights, dtype=np.float64), 2)
        return _Adjacency(starts, target[order], weights[order])

    def _row(self, rank: int) -> slice:
        if not 0 <= rank < self.size:
            raise IndexError(f"rank must be in 0..{self.size - 1}, got {rank}")
        starts = self._adjacency.starts
        return slice(int(starts[rank]), int(starts[rank + 1]))

    def _check_connected(self) -> None:
        seen = np.zeros(self.size, dtype=bool)
        seen[list(self.dead)] = True
        root = int(self.survivors[0])
        seen[root] = True
        waiting = [root]
        while waiting:
            row = self._adjacency.neighbours[self._row(waiting.pop())]
            fresh = row[~seen[row]]
            seen[fresh] = True
            waiting.extend(fresh.tolist())
        if not seen.all():
            lost = np.flatnonzero(~seen)
            raise TopologyError(
                f"a graph must be connected, but in {self.name!r} {_list(lost)} cannot "
                f"be reached from rank {root}; add edges that join them"
            )
        has_edges = np.isin(np.array(self.dead), np.concatenate(self.endpoints))
        if has_edges.any():
            raise TopologyError(
                f"a dead rank has no edges, but in {self.name!r} "
                f"{_list(np.array(self.dead)[has_edges])} has; `repaired` leaves them out"
            )


def _list(ranks: Integers, most: int = 5) -> str:
    """'rank 3' or 'ranks 3, 4, 5 and 9 more'."""
    if ranks.size == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(str(rank) for rank in ranks[:most])
    more = f" and {ranks.size - most} more" if ranks.size > most else ""
    return f"ranks {shown}{more}"


def _check_dead(size: int, dead: tuple[int, ...]) -> None:
    if list(dead) != sorted({*dead}) or not all(0 <= rank < size for rank in dead):
        raise TopologyError(
            f"dead ranks must be in 0..{size - 1}, sorted, each once, got {dead}"
        )
    if len(dead) == size:
        raise TopologyError(f"a graph needs a survivor, got {size} dead of {size}")


def _check_edges(size: int, first: Integers, second: Integers) -> None:
    ends = np.stack([first, second], axis=1)
    for i, j in ends[first == second]:
        raise TopologyError(
            f"an edge joins two ranks, got the self-loop ({i}, {j}); leave it out"
        )
    for i, j in ends[(first < 0) | (first > second) | (second >= size)]:
        raise TopologyError(
            f"an edge must be (i, j) with 0 <= i < j < {size}, got ({i}, {j})"
        )
    places = first * size + second
    for i, j in ends[1:][places[1:] <= places[:-1]]:
        raise TopologyError(
            f"edges must be sorted and unique, got ({i}, {j}) too late or again; "
            "`Topology.equal` sorts them"
        )


def _check_weights(edges: tuple[Edge, ...], weights: tuple[float, ...]) -> None:
    if len(weights) != len(edges):
        raise TopologyError(
            f"each edge needs one weight, got {len(weights)} for {len(edges)} edges"
        )
    values = np.array(weights, dtype=np.float64)
    for index in np.flatnonzero(~(np.isfinite(values) & (values > 0))):
        raise TopologyError(
            f"the rate of an edge must be positive and finite, got {values[index]} for "
            f"{edges[index]}; leave out an edge that never exchanges"
        )


def _check_comm_rate(comm_rate: float) -> None:
    if not (math.isfinite(comm_rate) and comm_rate >= 0):
        raise ConfigError(f"comm_rate must be finite and not negative, got {comm_rate}")
