"""A quadratic whose optimum is known: rank i holds f_i(x) = 1/2 (x - b_i)ᵀ A (x - b_i).

A is diagonal with eigenvalues from 1 down to 1/condition, evenly spaced in their
logarithm. The b_i are spread around a common centre, and a gradient carries noise: the
three things decentralised training must cope with are set one by one. NumPy only.
"""

import math
from collections.abc import Collection
from typing import final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from acidmpi.errors import ConfigError
from acidmpi.tasks.interface import State, TaskDefaults
from acidmpi.tasks.sampling import Purpose, generator_for

Vector = NDArray[np.floating]

DEFAULTS = TaskDefaults(
    epochs=20,
    batch_size=1,
    lr=0.02,
    momentum=0.9,
    weight_decay=0.0,
    model=None,
    uses_torch=False,
)

HETEROGENEITY = 1.0
"""Standard deviation, over ranks, of an element of their minima."""

SAMPLES_PER_EPOCH = 1000
"""There are no samples to count; this makes the length of an epoch comparable."""


@final
class Quadratic:
    """The function of one rank and the excess loss of all.

    Args:
        seed: fixes all b_i, and with the rank its noise.
        rank: this rank.
        size: number of ranks.
        batch_size: samples in a gradient; divides the variance of the noise.
        dimension: length of x.
        condition: largest eigenvalue of A over the smallest.
        heterogeneity: standard deviation of an element of b_i over the ranks.
        noise: standard deviation of an element of one sample's gradient.
        dtype: of x and the gradients.
    """

    name = "quadratic"
    model = None
    defaults = DEFAULTS
    train_size = SAMPLES_PER_EPOCH
    samples_per_epoch = SAMPLES_PER_EPOCH

    def __init__(
        self,
        *,
        seed: int = 0,
        rank: int = 0,
        size: int = 1,
        batch_size: int = DEFAULTS.batch_size,
        dimension: int = 1000,
        condition: float = 10.0,
        heterogeneity: float = HETEROGENEITY,
        noise: float = 0.1,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if dimension < 1 or condition < 1 or heterogeneity < 0 or noise < 0:
            raise ConfigError(
                "a quadratic needs dimension and condition of at least 1 and no "
                f"negative spread, got {dimension=}, {condition=}, {heterogeneity=}, "
                f"{noise=}"
            )
        self.batch_size = batch_size
        self.dimension = dimension
        self.generator = generator_for(seed, Purpose.NOISE, rank)
        self._dtype = np.dtype(dtype)
        self._noise = noise / math.sqrt(batch_size)
        self._eigenvalues = np.geomspace(1.0, 1.0 / condition, dimension)
        self._seed = seed
        self._heterogeneity = heterogeneity
        own = self._minimum_of(rank)
        self._size = size
        self._optimum = own if heterogeneity == 0 else self._mean_minimum(range(size))
        self._curvature = self._eigenvalues.astype(self._dtype)
        self._own = own.astype(self._dtype)

    def _minimum_of(self, rank: int) -> NDArray[np.float64]:
        centre = generator_for(self._seed, Purpose.OPTIMUM)
        spread = generator_for(self._seed, Purpose.OPTIMUM, rank)
        return centre.standard_normal(
            self.dimension
        ) + self._heterogeneity * spread.standard_normal(self.dimension)

    def _mean_minimum(self, ranks: Collection[int]) -> NDArray[np.float64]:
        # One at a time: thousands of ranks must not cost thousands of vectors.
        total = np.zeros(self.dimension)
        for rank in ranks:
            total += self._minimum_of(rank)
        return total / len(ranks)

    def leave_out(self, dead: Collection[int]) -> None:
        """From now on the loss is that of the other ranks' functions alone.

        A function of its own dies with each rank: the survivors have another optimum.
        """
        alive = [rank for rank in range(self._size) if rank not in dead]
        if dead and self._heterogeneity:
            self._optimum = self._mean_minimum(alive)

    def initial(self) -> Vector:
        """Where every rank starts: the origin."""
        return np.zeros(self.dimension, self._dtype)

    def gradient(self, x: Vector, generator: np.random.Generator) -> Vector:
        """A new array: A (x - b_i) plus noise from `generator`."""
        gradient: Vector = self._curvature * (x - self._own)
        if self._noise:
            noise = generator.standard_normal(self.dimension)
            gradient += (self._noise * noise).astype(self._dtype)
        return gradient

    def loss(self, x: Vector) -> float:
        """The mean of all ranks' functions at `x`, minus its value at the optimum."""
        distance = np.asarray(x, np.float64) - self._optimum
        return 0.5 * float(np.sum(self._eigenvalues * distance**2))

    def evaluate(self, x: Vector) -> tuple[float, None]:
        """The excess loss; there is no accuracy."""
        return self.loss(x), None

    def state(self) -> State:
        """Position of `generator`."""
        return dict(self.generator.bit_generator.state)

    def restore(self, state: State) -> None:
        """Go on from a position that `state` gave."""
        self.generator.bit_generator.state = state
