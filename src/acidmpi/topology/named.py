"""The graphs that have a name, as arrays of edges over any number of ranks."""

from collections.abc import Callable
from math import isqrt

import numpy as np

from acidmpi.errors import TopologyError
from acidmpi.topology.graph import Integers

_ATTEMPTS = 100


def most_square(size: int) -> tuple[int, int]:
    """Rows and columns of the grid of `size` cells that is nearest to a square.

    A prime has no factors: its grid is one row, that is a path, and its torus a ring.
    """
    rows = next(rows for rows in range(isqrt(size), 0, -1) if size % rows == 0)
    return rows, size // rows


def _pairs(first: Integers, second: Integers) -> Integers:
    first, second = np.broadcast_arrays(first, second)
    return np.stack([first.ravel(), second.ravel()], axis=1)


def _path(size: int) -> Integers:
    ranks = np.arange(size)
    return _pairs(ranks[:-1], ranks[1:])


def _ring(size: int) -> Integers:
    ranks = np.arange(size)
    return _pairs(ranks, np.roll(ranks, -1))


def _star(size: int) -> Integers:
    return _pairs(np.array([0]), np.arange(1, size))


def _complete(size: int) -> Integers:
    return _pairs(*np.triu_indices(size, 1))


def _powers_of_two_below(size: int) -> Integers:
    return 1 << np.arange((size - 1).bit_length())


def _exponential(size: int) -> Integers:
    ranks = np.arange(size)[:, None]
    return _pairs(ranks, (ranks + _powers_of_two_below(size)) % size)


def _grid(size: int) -> Integers:
    cells = np.arange(size).reshape(most_square(size))
    along = _pairs(cells[:, :-1], cells[:, 1:])
    across = _pairs(cells[:-1], cells[1:])
    return np.concatenate([along, across])


def _torus(size: int) -> Integers:
    cells = np.arange(size).reshape(most_square(size))
    along = _pairs(cells, np.roll(cells, -1, axis=1))
    across = _pairs(cells, np.roll(cells, -1, axis=0))
    return np.concatenate([along, across])


def _hypercube(size: int) -> Integers:
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise TopologyError(
            f"a hypercube needs a power of two of ranks, got {size=}; start {below} or "
            f"{2 * below} ranks, or use 'exponential', which takes any number"
        )
    ranks = np.arange(size)[:, None]
    return _pairs(ranks, ranks ^ _powers_of_two_below(size))


PLAIN: dict[str, Callable[[int], Integers]] = {
    "ring": _ring,
    "path": _path,
    "star": _star,
    "complete": _complete,
    "exponential": _exponential,
    "grid": _grid,
    "torus": _torus,
    "hypercube": _hypercube,
}
RANDOM_REGULAR = "random-regular"
NAMES = (*PLAIN, f"{RANDOM_REGULAR}:DEGREE")


def plain_edges(name: str, size: int) -> Integers:
    """Edges of the graph `name`; some may come twice, in either orientation."""
    edges = PLAIN[name](size)
    # A ring or a torus that wraps around a single rank meets itself.
    return np.asarray(edges[edges[:, 0] != edges[:, 1]])


def random_regular_edges(degree: int, size: int, seed: int) -> Integers:
    """Edges of a random connected graph in which every rank has `degree` neighbours."""
    if size == 1:
        return _path(1)
    _check_degree(degree, size)
    generator = np.random.default_rng(seed)
    if degree == 2:
        # Random unions of rings are rarely one ring, so draw the one ring directly.
        order = generator.permutation(size)
        return _pairs(order, np.roll(order, -1))
    if degree > size // 2:
        # Dense graphs take networkx minutes; what is left out is drawn in their place.
        return _left_out(_draw(size - 1 - degree, size, generator), size)
    return _draw_connected(degree, size, generator)


def _left_out(edges: Integers, size: int) -> Integers:
    """Edges of the complement; connected if each rank keeps over half of the others."""
    kept = np.triu(np.ones((size, size), dtype=bool), 1)
    kept[edges.min(axis=1), edges.max(axis=1)] = False
    return np.argwhere(kept)


def _draw_connected(degree: int, size: int, generator: np.random.Generator) -> Integers:
    from networkx import from_edgelist, is_connected

    for _ in range(_ATTEMPTS):
        edges = _draw(degree, size, generator)
        if is_connected(from_edgelist(edges.tolist())):
            return edges
    raise TopologyError(
        f"no connected random graph of degree {degree} over {size} ranks was found in "
        f"{_ATTEMPTS} draws; use a higher degree or another seed"
    )


def _draw(degree: int, size: int, generator: np.random.Generator) -> Integers:
    from networkx import random_regular_graph

    graph = random_regular_graph(degree, size, seed=int(generator.integers(2**32)))
    return np.array(list(graph.edges), dtype=np.intp).reshape(-1, 2)


def _check_degree(degree: int, size: int) -> None:
    if not 1 <= degree < size:
        raise TopologyError(
            f"a random regular graph of {size} ranks needs a degree in 1..{size - 1}, "
            f"got {degree}; use a smaller degree or more ranks"
        )
    if degree == 1 and size > 2:
        raise TopologyError(
            f"a regular graph of degree 1 cannot join {size} ranks; use a degree of at "
            "least 2"
        )
    if degree * size % 2:
        raise TopologyError(
            f"degree x ranks must be even in a regular graph, got {degree} x {size}; "
            f"use degree {degree - 1} or an even number of ranks"
        )
