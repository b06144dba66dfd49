"""What ranks that step together tell each other in a pulse: one vector, summed over all.

First what the pulse itself asks, then one number for each rank that says whether it
complains of its gradient, then, where parameters differ between ranks, a sketch of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays import bfloat16
from acidmpi.arrays.accelerator import beside, to_host
from acidmpi.telemetry.sketch import Sketcher, consensus_distance
from acidmpi.train.pulse import PULSE_SIZE, Told

Array = NDArray[Any]

SEED = 0
"""Of the sketch: every rank samples the same coordinates."""

PIECE = 1 << 20
"""Numbers that are taken to float64 at a time."""


class Heard(NamedTuple):
    """The same on all ranks."""

    pulse: Told
    complaint: int | None
    """The lowest rank that complains."""
    distance: float
    """Estimate of the mean over ranks of ‖x_i − x̄‖²; 0 where parameters do not differ."""


@final
class News:
    """Makes the vector of one rank, and reads the mean of all.

    Args:
        rank: this one.
        size: number of ranks.
        parameters: live arrays that differ between ranks, in host memory or on a device,
            which is read in the order of CuPy's current stream.
    """

    def __init__(self, rank: int, size: int, parameters: Sequence[Array]) -> None:
        self._rank, self._size = rank, size
        self._parameters = parameters
        self._sketcher = Sketcher([x.size for x in parameters], SEED)
        pairs = zip(self._sketcher.coordinates, parameters, strict=True)
        self._places = [beside(place, x) for place, x in pairs]

    def tell(self, pulse: Told, complains: bool) -> Array:
        """What this rank says."""
        parts = [pulse, self.complaints(complains)]
        return np.concatenate([*parts, self._sketch()] if self._parameters else parts)

    def complaints(self, complains: bool) -> Array:
        """Whether this rank complains, in its own place; for times without a pulse."""
        told = np.zeros(self._size)
        told[self._rank] = complains
        return told

    def complaint(self, mean: Array) -> int | None:
        """The lowest rank that complains, from the mean over ranks of `complaints`."""
        return int(np.argmax(mean > 0)) if mean.any() else None

    def hear(self, mean: Array) -> Heard:
        """What all ranks say together."""
        start, end = PULSE_SIZE, PULSE_SIZE + self._size
        sketch = mean[end:] * self._size
        distance = consensus_distance(sketch, self._size) if sketch.size else 0.0
        return Heard(mean[:start], self.complaint(mean[start:end]), distance)

    def _sketch(self) -> Array:
        pairs = zip(self._parameters, self._places, strict=True)
        samples = [as_float64(to_host(x[place])) for x, place in pairs]
        return self._sketcher.sketch(samples)


def squared_distance(a: Array, b: Array) -> float:
    """‖a − b‖² of vectors, in float64; with no more memory than a piece of them takes."""
    pieces = [slice(k, k + PIECE) for k in range(0, a.size, PIECE)]
    apart = (as_float64(a[piece]) - as_float64(b[piece]) for piece in pieces)
    return sum((float(np.sum(np.square(each))) for each in apart), 0.0)


def as_float64(x: Array) -> NDArray[np.float64]:
    """The numbers that x holds; uint16 stands for bfloat16."""
    wide = bfloat16.decode(x) if x.dtype == np.uint16 else x
    return wide.astype(np.float64)
