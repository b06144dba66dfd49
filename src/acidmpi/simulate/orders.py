"""The order of mixing and exchanging: the exact one, and two that it is compared with.

Each function mixes both ranks up to their thetas and returns what either subtracts. `exact`
and `raw` give opposite differences, to the last bit; with `authors` the two ends do not
agree, and the mean over ranks moves by what they differ in.
"""

from collections.abc import Callable

import numpy as np

from acidmpi.simulate.cluster import Cluster
from acidmpi.simulate.workload import Floats

Differences = tuple[Floats, Floats]


def read(cluster: Cluster, i: int, j: int, theta_i: float, theta_j: float) -> Floats:
    """Mix, then what `i` sent less what it received; a new array."""
    return np.subtract(cluster.at(i, theta_i), cluster.at(j, theta_j))


def exact(
    cluster: Cluster, i: int, j: int, theta_i: float, theta_j: float
) -> Differences:
    """As `acidmpi` does it: both mix, both send what they mixed."""
    m = read(cluster, i, j, theta_i, theta_j)
    return m, np.negative(m)


def raw(
    cluster: Cluster, i: int, j: int, theta_i: float, theta_j: float
) -> Differences:
    """The difference of unmixed values; mixing comes after it was taken."""
    m = np.subtract(cluster.raw(i), cluster.raw(j))
    cluster.at(i, theta_i)
    cluster.at(j, theta_j)
    return m, np.negative(m)


def authors(
    cluster: Cluster, i: int, j: int, theta_i: float, theta_j: float
) -> Differences:
    """As the authors' program: send unmixed, mix one's own, subtract what came."""
    sent_i, sent_j = cluster.raw(i).copy(), cluster.raw(j).copy()
    return cluster.at(i, theta_i) - sent_j, cluster.at(j, theta_j) - sent_i


DIFFERENCES: dict[str, Callable[[Cluster, int, int, float, float], Differences]] = {
    "exact": exact,
    "raw": raw,
    "authors": authors,
}
