"""Averaging and a noisy quadratic; and the workload that options ask for."""

from typing import final

import numpy as np

from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.digits import LogisticDigits
from acidmpi.simulate.workload import Floats, Scores, Workload
from acidmpi.tasks.sampling import Purpose, generator_for


def make_workload(config: SimulateConfig, seed: int) -> Workload:
    """The workload that the options describe.

    Args:
        config: the options.
        seed: of this run.
    """
    if config.workload == "averaging":
        return Averaging(config.ranks, config.dimension, seed)
    if config.workload == "quadratic":
        return NoisyQuadratic(config, seed)
    return LogisticDigits(config.ranks, config.batch_size, config.dirichlet, seed)


@final
class Averaging:
    """Every rank holds standard normal numbers, and no gradient ever comes.

    Args:
        ranks: how many.
        dimension: length of the vectors.
        seed: determines them.
    """

    computes = False

    def __init__(self, ranks: int, dimension: int, seed: int) -> None:
        self._shape = ranks, dimension
        self._seed = seed

    def start(self) -> Floats:
        """See `Workload.start`."""
        return generator_for(self._seed, Purpose.OPTIMUM).standard_normal(self._shape)

    def gradient(self, rank: int, x: Floats) -> tuple[float | None, Floats]:
        """There is none."""
        raise NotImplementedError("averaging has no gradients")

    def evaluate(self, x: Floats) -> Scores:
        """There is nothing to score."""
        return None, None


@final
class NoisyQuadratic:
    """Rank i holds f_i(x) = 1/2 (x - b_i)ᵀ A (x - b_i) and sees its gradient in noise.

    A is diagonal, with eigenvalues from 1 down to the strong convexity, evenly spaced in
    their logarithm. With the same seed it is the problem of the trainer's task quadratic
    but for the scales of noise and spread, which are set here.

    Args:
        config: ranks, dimension, strong convexity, noise, heterogeneity.
        seed: determines the b_i and the noise.
    """

    computes = True

    def __init__(self, config: SimulateConfig, seed: int) -> None:
        shape = config.ranks, config.dimension
        self._curvature = np.geomspace(1.0, config.strong_convexity, config.dimension)
        self._minima = np.empty(shape)
        centre = generator_for(seed, Purpose.OPTIMUM).standard_normal(config.dimension)
        for rank in range(config.ranks):
            spread = generator_for(seed, Purpose.OPTIMUM, rank)
            own = spread.standard_normal(config.dimension)
            self._minima[rank] = centre + config.heterogeneity * own
        self._optimum = self._minima.mean(axis=0)
        self._noise = config.noise
        self._chance = [
            generator_for(seed, Purpose.NOISE, rank) for rank in range(config.ranks)
        ]
        self._shape = shape
        self._scratch = np.empty(config.dimension)

    def start(self) -> Floats:
        """All at the origin."""
        return np.zeros(self._shape)

    def gradient(self, rank: int, x: Floats) -> tuple[float | None, Floats]:
        """A (x - b_i) plus noise; the loss is not computed."""
        gradient = np.subtract(x, self._minima[rank])
        gradient *= self._curvature
        if self._noise:
            self._chance[rank].standard_normal(out=self._scratch)
            self._scratch *= self._noise
            gradient += self._scratch
        return None, gradient

    def evaluate(self, x: Floats) -> Scores:
        """The mean of all ranks' functions at `x`, above its smallest value."""
        return 0.5 * float(self._curvature @ (x - self._optimum) ** 2), None
