"""How fast a graph mixes: chi_1 and chi_2 of its Laplacian.

Lambda is the sum over edges of rate (e_i - e_j)(e_i - e_j)^T. chi_1 is 1 / lambda_2 of
it, chi_2 the largest over edges of (e_i - e_j)^T Lambda^+ (e_i - e_j) / 2.

One dense Cholesky inverse serves both numbers: n^3 operations and 8 n^2 bytes, seconds
and 128 MiB for 4096 ranks. Ask one rank to do it, not all.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import ConfigError, TopologyError
from acidmpi.topology.graph import Floats, Integers, Topology

_SMALL = 256
"""Up to so many ranks, NumPy alone does it in milliseconds."""


class Spectrum(NamedTuple):
    """Inverse algebraic connectivity and half the largest effective resistance.

    Both scale with 1 / comm_rate, and chi_2 <= chi_1. A single rank has nobody to
    disagree with: both are 0, for which the coefficients are those of the baseline.
    """

    chi_1: float
    chi_2: float


def spectrum(topology: Topology, comm_rate: float = 1.0) -> Spectrum:
    """Spectrum of `topology` when ranks take part in `comm_rate` exchanges a unit.

    Dead ranks do not count: it is that of the graph of the survivors.
    """
    if not (math.isfinite(comm_rate) and comm_rate > 0):
        raise ConfigError(f"comm_rate must be positive and finite, got {comm_rate}")
    survivors = topology.survivors
    first, second = (np.searchsorted(survivors, ends) for ends in topology.endpoints)
    rates = topology.rates(1.0)
    at_one = spectrum_of_rates(survivors.size, (first, second), rates)
    return Spectrum(at_one.chi_1 / comm_rate, at_one.chi_2 / comm_rate)


def spectrum_of_rates(
    size: int, endpoints: tuple[Integers, Integers], rates: NDArray[np.floating[Any]]
) -> Spectrum:
    """Spectrum of given, for example measured, rates on the edges of a connected graph.

    Args:
        size: number of ranks.
        endpoints: lower and higher rank of each edge, as in `Topology.endpoints`.
        rates: exchanges per unit of time on each edge, all positive.
    """
    if size == 1:
        return Spectrum(0.0, 0.0)
    first, second = endpoints
    scale = float(rates.max())
    inverse = _shifted_inverse(_laplacian(size, endpoints, rates / scale))
    resistances = _effective_resistances(inverse, first, second)
    chi_1 = _largest_eigenvalue(inverse)
    return Spectrum(chi_1 / scale, float(resistances.max()) / 2 / scale)


def _laplacian(
    size: int, endpoints: tuple[Integers, Integers], rates: NDArray[np.floating[Any]]
) -> Floats:
    """Lower triangle of the Laplacian, in the order of axes that LAPACK works in."""
    first, second = endpoints
    laplacian = np.zeros((size, size), order="F")
    laplacian[second, first] = -rates
    degrees = np.bincount(np.concatenate(endpoints), np.tile(rates, 2), minlength=size)
    laplacian[np.diag_indices(size)] = degrees
    return laplacian


def _shifted_inverse(laplacian: Floats) -> Floats:
    """Lower triangle of (Lambda + s J/n)^-1, made in the memory of `laplacian`.

    It has Lambda^+'s eigenvectors and eigenvalues, but 1/s instead of 0 on the constant
    vector. The shift s is the mean of the other eigenvalues of Lambda, so 1/s is never
    the largest one, and the constant vector drops out of every resistance.
    """
    size = len(laplacian)
    shift = float(np.trace(laplacian)) / (size - 1)
    laplacian += shift / size
    inverse = _inverse(laplacian)
    if inverse is None:
        raise TopologyError(
            "the rates of the edges span too many orders of magnitude for a spectrum; "
            "bring the smallest and the largest nearer together"
        )
    return inverse


def _inverse(lower: Floats) -> Floats | None:
    """Lower triangle of the inverse, or None where the matrix is not positive.

    Small ones are inverted by NumPy: SciPy's import takes a survivor of a death longer
    than the work.
    """
    if len(lower) <= _SMALL:
        try:
            factor = np.linalg.inv(np.linalg.cholesky(lower))
        except np.linalg.LinAlgError:
            return None
        return np.asarray(factor.T @ factor)
    from scipy.linalg import lapack

    factor, failed = lapack.dpotrf(lower, lower=1, clean=0, overwrite_a=1)
    if not failed:
        inverse, failed = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return None if failed else np.asarray(inverse)


def _effective_resistances(
    inverse: Floats, first: Integers, second: Integers
) -> Floats:
    own = np.diagonal(inverse)
    return own[first] + own[second] - 2 * inverse[second, first]


def _largest_eigenvalue(lower: Floats) -> float:
    """Largest eigenvalue of a symmetric matrix given by its lower triangle."""
    size = len(lower)
    if size <= _SMALL:
        return float(np.linalg.eigvalsh(lower, UPLO="L")[-1])
    from scipy.linalg import blas
    from scipy.sparse.linalg import LinearOperator, eigsh

    def multiply(vector: Floats) -> Any:
        return blas.dsymv(1.0, lower, vector, lower=1)

    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    # A start of our own: the same result every time, blind to the graph's structure.
    start = np.random.default_rng(0).standard_normal(size)
    values = eigsh(
        operator, k=1, which="LA", v0=start, tol=1e-10, return_eigenvectors=False
    )
    return float(values[0])
