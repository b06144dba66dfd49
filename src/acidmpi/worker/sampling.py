"""Samples of x for the heartbeat, which never wait for a device."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.precision import widen
from acidmpi.arrays.site import Fetch

Places = Sequence[NDArray[np.intp]]


class Sample(NamedTuple):
    """Values of x and x̃ at a few places, on their way to host memory."""

    x: list[Fetch]
    x_tilde: list[Fetch | None]
    weight: float
    """By which they are to be mixed."""

    def ready(self) -> bool:
        """Whether all have come."""
        return all(each.ready() for each in (*self.x, *self.x_tilde) if each)

    def values(self) -> list[NDArray[np.float64]]:
        """They, mixed, one array for each buffer; waited for if need be."""
        return [
            self._mixed(x, tilde) for x, tilde in zip(self.x, self.x_tilde, strict=True)
        ]

    def _mixed(self, x: Fetch, tilde: Fetch | None) -> NDArray[np.float64]:
        at = widen(x.values()).astype(np.float64)
        return at if tilde is None else at + self.weight * (tilde.values() - at)


class Sampler:
    """Takes a sample at each call and hands out the newest that has come.

    In host memory that is the sample of the call itself.

    Args:
        begin: begins a sample.
    """

    def __init__(self, begin: Callable[[Places], Sample]) -> None:
        self._begin = begin
        self._coming: Sample | None = None
        self._newest: list[NDArray[np.float64]] | None = None

    def sample(self, places: Places) -> list[NDArray[np.float64]]:
        """One array for each buffer; only the first call of all may wait."""
        self._take()
        if self._coming is None:
            self._coming = self._begin(places)
            self._take()
        if self._newest is None:
            self._newest, self._coming = self._coming.values(), None
        return self._newest

    def _take(self) -> None:
        if self._coming is not None and self._coming.ready():
            self._newest, self._coming = self._coming.values(), None
