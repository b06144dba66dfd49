"""How long each rank takes for a gradient, in units of time.

The unit is the mean over ranks of a gradient's time as `acidmpi` defines it: ranks x time
over gradients of all. A rank that is three times slower than the others thus takes a little
less than three units, and they a little less than one.
"""

import numpy as np

from acidmpi.config.simulate import SimulateConfig

_STREAM = 0x59EED


class Speeds:
    """Durations of gradients; one stream of chance for all ranks.

    Args:
        config: the options.
        seed: of this run.
    """

    def __init__(self, config: SimulateConfig, seed: int) -> None:
        self._chance = np.random.default_rng([_STREAM, seed])
        self._random = config.speeds == "random"
        self._shape = config.speed_spread**-2
        seconds = np.ones(config.ranks)
        if config.speeds == "stragglers":
            seconds[: config.stragglers] = config.straggler_factor
        self.unit_seconds = 1.0 / float(np.mean(1.0 / seconds))
        """Seconds of a unit, where a gradient of a rank that is not slow takes one."""
        self.means = [float(s) / self.unit_seconds for s in seconds]
        """Mean units of a gradient, by rank."""

    def duration(self, rank: int) -> float:
        """Units that the next gradient of `rank` takes."""
        mean = self.means[rank]
        if not self._random:
            return mean
        return mean * self._chance.standard_gamma(self._shape) / self._shape

    def first(self, rank: int) -> float:
        """Units until the first gradient of `rank` ends: they do not march in step."""
        if self._random:
            return self.duration(rank)
        return self.means[rank] * float(self._chance.random())
