"""What theory says of a run before it is made."""

from typing import NamedTuple

from acidmpi.config.simulate import SimulateConfig
from acidmpi.dynamics.coefficients import BASELINE, Coefficients, acid_coefficients
from acidmpi.dynamics.moments import Moments
from acidmpi.simulate.graph import Graph

MOST_RANKS = 256
"""Above it second moments take too long."""


class Prediction(NamedTuple):
    """Of pure averaging with ideal edges; None is what theory does not say."""

    proven: float | None
    """Decay in the paper's proof, 1/χ₁ or 1/√(χ₁χ₂)."""

    mean_square: float | None
    """Exact decay of the mean of the squared distance; what is typical is faster."""

    noise: float | None
    """Consensus distance in the long run from the noise of a quadratic function's
    gradients alone, without momentum and without its curvature."""


def constants_of(config: SimulateConfig, graph: Graph) -> Coefficients:
    """The constants that the options ask for."""
    if config.method != "a2cid2":
        return BASELINE
    rate = config.comm_rate if config.assumed_rate is None else config.assumed_rate
    return acid_coefficients(graph.chi_1, graph.chi_2, config.safety, rate)


def predict(config: SimulateConfig, graph: Graph) -> Prediction:
    """The rates of `config` on `graph`."""
    if config.ranks == 1 or config.comm_rate == 0:
        return Prediction(None, None, None)
    constants = constants_of(config, graph)
    chi = graph.chi_1 if constants.eta == 0 else (graph.chi_1 * graph.chi_2) ** 0.5
    proven = config.comm_rate / chi
    if config.ranks > MOST_RANKS:
        return Prediction(proven, None, None)
    topology = graph.topology
    rates = topology.rates(config.comm_rate)
    moments = Moments(config.ranks, topology.endpoints, rates, constants)
    if config.workload != "quadratic" or config.momentum:
        return Prediction(proven, moments.decay(), None)
    variance = (config.lr * config.noise) ** 2 * config.dimension
    return Prediction(proven, moments.decay(), moments.noise_distance(variance))
