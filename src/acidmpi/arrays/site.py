"""Where a rank's arrays live, and in which order the two loops touch them.

The compute loop and the communication loop take turns, each under the state's lock. In
host memory that is all there is to it: the lock is the turn. On a device a turn queues
work and is over before the work is done, so every turn also waits, on the device, for the
event that the other side's last turn has left, and leaves one itself. The compute loop's
turns use the stream that its caller uses; the communication loop has a stream of its own.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acidmpi.arrays import bfloat16
from acidmpi.arrays.flat import Array, wide_dtype

Turn = AbstractContextManager[Any]

HOST_BLOCK_BYTES = 1 << 20
"""What a core's cache can hold."""


class Fetch(Protocol):
    """Values on their way to host memory."""

    def ready(self) -> bool:
        """Whether they have come."""
        ...

    def values(self) -> Array:
        """They, waited for if need be: not to be called under a lock."""
        ...


class Site(Protocol):
    """Host memory, or a device."""

    name: str
    """What the summary calls it."""

    uuid: str | None
    """Tells a device from all others."""

    block_bytes: int
    """Size of the pieces in which work on all of x is done."""

    def computing(self, lock: Any) -> Turn:
        """A turn of the compute loop."""
        ...

    def communicating(self, lock: Any) -> Turn:
        """A turn of the communication loop."""
        ...

    def empty(self, size: int, dtype: npt.DTypeLike) -> Array:
        """Memory for the communication loop."""
        ...

    def companion(self, x: Array) -> Array:
        """Memory for x̃ of `x`, whose values are not set yet; in a turn."""
        ...

    def restart(self, kernels: Any, x: Array, x_tilde: Array) -> None:
        """Set x̃ to x; in a turn of the communication loop."""
        ...

    def fetch(self, array: Array) -> Fetch:
        """Begin to copy, in the stream of the communication loop; x only in its turn."""
        ...

    def gather(self, array: Array, where: npt.NDArray[np.intp]) -> Fetch:
        """Begin to copy the elements at `where`; in a turn of the communication loop."""
        ...

    def put(self, array: Array, values: Array) -> None:
        """Copy from host memory; in a turn of the communication loop."""
        ...

    def settle(self) -> None:
        """What the caller queues from now on sees all that was done so far."""
        ...


class _Here:
    """Values that are in host memory already."""

    __slots__ = ("_values",)

    def __init__(self, values: Array) -> None:
        self._values = values

    def ready(self) -> bool:
        """Always."""
        return True

    def values(self) -> Array:
        """At once."""
        return self._values


class HostSite:
    """Host memory: work is done when a call returns, and the lock is the turn."""

    name = "cpu"
    uuid: str | None = None
    block_bytes = HOST_BLOCK_BYTES

    def computing(self, lock: Any) -> Turn:
        """See `Site`."""
        turn: Turn = lock
        return turn

    communicating = computing

    def empty(self, size: int, dtype: npt.DTypeLike) -> Array:
        """See `Site`."""
        return np.empty(size, dtype)

    def companion(self, x: Array) -> Array:
        """See `Site`."""
        return np.empty(x.size, wide_dtype(x.dtype))

    def restart(self, kernels: Any, x: Array, x_tilde: Array) -> None:
        """See `Site`."""
        x_tilde[:] = bfloat16.decode(x) if x.dtype == np.uint16 else x

    def fetch(self, array: Array) -> Fetch:
        """See `Site`; the array itself."""
        return _Here(array)

    def gather(self, array: Array, where: npt.NDArray[np.intp]) -> Fetch:
        """See `Site`."""
        return _Here(array[where])

    def put(self, array: Array, values: Array) -> None:
        """See `Site`."""
        array[...] = values

    def settle(self) -> None:
        """See `Site`; nothing to do."""


HOST = HostSite()
"""Has no state of its own: one is enough for all."""
