"""How far apart ranks stay that average in pairs while each adds noise of its own.

Each rank adds independent zero-mean updates, one per unit of time, of mean square v, and
edges exchange on Poisson clocks. In mode k of the Laplacian (eigenvalue l) the stationary
2x2 moments S of (x, x_tilde) obey

    A S + S A^T + v 1 1^T + l q a a^T = 0

with A = [[-eta - alpha l, eta], [eta - alpha_tilde l, -eta]], a = (alpha, alpha_tilde) and
q the mean square of x_i - x_j over an edge, which is sum_k l_k S_k,xx / sum of the rates.
One q for all edges is exact where they are all alike (rings, tori, hypercubes, complete
graphs); on a path of 16 ranks the result is 2 % too small.
"""

import math

import numpy as np
from numpy.typing import NDArray

from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.topology.graph import Topology

Floats = NDArray[np.float64]


def stationary_distance(
    topology: Topology, comm_rate: float, coefficients: Coefficients
) -> float:
    """Consensus distance over the mean square of one update (‖u‖², per gradient).

    Args:
        topology: whose edges exchange.
        comm_rate: exchanges per rank and unit of time.
        coefficients: constants made for that rate.

    Returns:
        Infinite where the moments grow without bound.
    """
    if topology.size < 2:
        return 0.0
    rates = topology.rates(comm_rate)
    total_rate = float(rates.sum())
    if total_rate == 0:
        return math.inf
    values = _eigenvalues(topology, rates)
    noise, kick = _responses(values, coefficients)
    left = total_rate - float(values @ (kick * values))
    if left <= 0 or noise.min() < 0:
        return math.inf
    square = float(values @ noise) / left
    return float(np.sum(noise + kick * values * square)) / topology.size


def _eigenvalues(topology: Topology, rates: Floats) -> Floats:
    """Of the Laplacian, but for the 0 of the mean."""
    first, second = topology.endpoints
    laplacian = np.zeros((topology.size, topology.size))
    for i, j, sign in ((first, first, 1), (second, second, 1), (second, first, -1)):
        np.add.at(laplacian, (i, j), sign * rates)
    return np.asarray(np.linalg.eigvalsh(laplacian, UPLO="L"), np.float64)[1:]


def _responses(values: Floats, constants: Coefficients) -> tuple[Floats, Floats]:
    """S_xx of each mode for v = 1 without exchanges' noise, and for l q = 1 alone."""
    if constants == BASELINE:
        return 1 / values, 0.25 / values
    eta, alpha, tilde = constants
    flows = np.empty((len(values), 2, 2))
    flows[:, 0, 0], flows[:, 0, 1] = -eta - alpha * values, eta
    flows[:, 1, 0], flows[:, 1, 1] = eta - tilde * values, -eta
    one = np.eye(2)
    system = np.einsum("kab,cd->kacbd", flows, one)
    system = -(system + np.einsum("kcd,ab->kacbd", flows, one)).reshape(-1, 4, 4)
    shares = np.array([alpha, tilde])
    sources = np.stack([np.ones(4), np.outer(shares, shares).ravel()], axis=1)
    found = np.linalg.solve(system, np.broadcast_to(sources, (len(values), 4, 2)))
    return found[:, 0, 0], found[:, 0, 1]


def lockstep_distance(size: int) -> float:
    """The same for synchronous gossip on the one-peer exponential graph.

    In each step x is averaged with one peer's and the update of x before is added, so an
    update of age a is shared by 2^a ranks, up to all of them after log2 n steps.
    """
    rounds = math.ceil(math.log2(size))
    return sum(max(0.0, 2.0**-age - 1 / size) for age in range(rounds))


def metropolis_distance(topology: Topology) -> float:
    """The same for synchronous gossip with all neighbours, Metropolis weights.

    With the eigenvalues w of the averaging matrix but 1: the mean of 1 / (1 - w^2).
    """
    first, second = topology.endpoints
    degree = np.bincount(np.concatenate([first, second]), minlength=topology.size)
    weights = 1.0 / (1 + np.maximum(degree[first], degree[second]))
    kept = 1 - _eigenvalues(topology, weights)
    return float(np.sum(1 / (1 - kept**2))) / topology.size


def local_distance(size: int, local_steps: int) -> float:
    """The same for local SGD: updates since the last average, mean over the steps."""
    return (local_steps - 1) / 2 * (size - 1) / size
