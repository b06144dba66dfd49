"""The turns of a rank whose arrays are in a device's memory: see `arrays.site`."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from acidmpi.arrays.accelerator import Accelerator, Event, Stream
from acidmpi.arrays.flat import Array, wide_dtype
from acidmpi.arrays.site import Fetch, Turn
from acidmpi.clocks import WallClock
from acidmpi.progress import Deadline

DEVICE_BLOCK_BYTES = 16 << 20
"""Enough that a launch costs little beside what it does."""

COPY_SECONDS = 300.0
LOOK_SECONDS = 20e-6


class _Side:
    """One of the two that take turns; guarded by the lock of the state."""

    def __init__(self) -> None:
        self.last: Event | None = None
        """Behind its last turn."""
        self.stream: Stream | None = None
        """Where that was."""
        self.seen: Event | None = None
        """The last event of the other side that it has been made to wait for."""


class _DeviceTurn:
    """The lock, and an event from the other side before and for it after."""

    __slots__ = ("_inside", "_lock", "_mine", "_other", "_site", "_stream")

    def __init__(
        self, site: "DeviceSite", mine: _Side, other: _Side, lock: Any
    ) -> None:
        self._site, self._mine, self._other, self._lock = site, mine, other, lock

    def __enter__(self) -> None:
        self._lock.__enter__()
        try:
            self._stream = self._site.begin(self._mine, self._other)
            self._inside = self._site.accelerator.on(self._stream)
            self._inside.__enter__()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *error: Any) -> None:
        try:
            try:
                self._site.end(self._mine, self._stream)
            finally:
                self._inside.__exit__(*error)
        finally:
            self._lock.__exit__(*error)


class DeviceSite:
    """A device: work is done later, in the order that events give it.

    Args:
        accelerator: the device.
    """

    block_bytes = DEVICE_BLOCK_BYTES

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.name, self.uuid = accelerator.name, accelerator.uuid
        self.stream = accelerator.stream()
        """The communication loop's."""
        self._compute, self._communicate = _Side(), _Side()
        self._flying: list[Flying] = []
        # What the caller has queued so far, such as x itself, comes first.
        self._compute.stream = accelerator.caller()
        self._compute.last = accelerator.record(self._compute.stream)

    def computing(self, lock: Any) -> Turn:
        """See `Site`."""
        return _DeviceTurn(self, self._compute, self._communicate, lock)

    def communicating(self, lock: Any) -> Turn:
        """See `Site`."""
        return _DeviceTurn(self, self._communicate, self._compute, lock)

    def begin(self, mine: _Side, other: _Side) -> Stream:
        """A turn begins, the lock is held: which stream it uses, with waits queued."""
        device, computes = self.accelerator, mine is self._compute
        stream = device.caller() if computes else self.stream
        moved = stream != mine.stream
        if moved and mine.last is not None:  # the caller has changed streams
            device.wait(stream, mine.last)
        if other.last is not None and (moved or other.last is not mine.seen):
            device.wait(stream, other.last)
        mine.seen = other.last
        return stream

    def end(self, mine: _Side, stream: Stream) -> None:
        """A turn ends, the lock is still held."""
        mine.stream, mine.last = stream, self.accelerator.record(stream)

    def empty(self, size: int, dtype: npt.DTypeLike) -> Array:
        """See `Site`."""
        with self.accelerator.on(self.stream):
            return self.accelerator.empty(size, dtype)

    def companion(self, x: Array) -> Array:
        """See `Site`."""
        return self.accelerator.empty(x.size, wide_dtype(x.dtype))

    def restart(self, kernels: Any, x: Array, x_tilde: Array) -> None:
        """See `Site`; x̃ = 0 − (−1)(x − 0), which is exact, and x keeps its bits.

        But for numbers below 1.2e-38: CuPy's kernels make zeros of them, in both alike.
        """
        self.accelerator.clear(x_tilde, self.stream)
        kernels.apply_exchange(x, x_tilde, x, x_tilde, 0.0, -1.0)

    def fetch(self, array: Array) -> Fetch:
        """See `Site`; into page-locked memory of its own."""
        self._flying = [one for one in self._flying if not one.ready()]
        flying = fly(self.accelerator, array, self.stream)
        self._flying.append(flying)  # its memory must outlive the copy
        return flying

    def gather(self, array: Array, where: npt.NDArray[np.intp]) -> Fetch:
        """See `Site`."""
        return self.fetch(self.accelerator.gather(array, where))

    def put(self, array: Array, values: Array) -> None:
        """See `Site`."""
        room = self.accelerator.pinned(array.nbytes).view(array.dtype)
        room[...] = values
        self.accelerator.copy(array, room, self.stream)
        event = self.accelerator.record(self.stream)
        self._flying.append(Flying(self.accelerator, event, room, array))

    def settle(self) -> None:
        """See `Site`."""
        if self._communicate.last is not None:
            device = self.accelerator
            device.wait(device.caller(), self._communicate.last)


class Flying:
    """A copy that the device makes; keeps both ends alive.

    Args:
        accelerator: the device.
        event: behind the copy.
        room: where it goes, page-locked.
        array: where it comes from.
    """

    def __init__(
        self, accelerator: Accelerator, event: Event, room: Array, array: Array
    ) -> None:
        self._accelerator, self._event = accelerator, event
        self._room, self._array = room, array

    def ready(self) -> bool:
        """See `Fetch`."""
        return self._accelerator.done(self._event)

    def values(self) -> Array:
        """See `Fetch`; asks and sleeps, so that other threads go on meanwhile.

        Raises:
            DeadlineExceeded: the device does not finish it.
        """
        deadline = Deadline(COPY_SECONDS, WallClock(), "a copy from the GPU")
        while not self.ready():
            deadline.check()
            time.sleep(LOOK_SECONDS)
        return self._room


def fly(accelerator: Accelerator, array: Array, stream: Stream) -> Flying:
    """Begin to copy `array` into page-locked memory of its own, in order of `stream`."""
    room = accelerator.pinned(array.nbytes).view(array.dtype)
    accelerator.copy(room, array, stream)
    return Flying(accelerator, accelerator.record(stream), room, array)
