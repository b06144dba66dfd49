"""What is needed of a device that works by itself: memory, queues of work, and events.

A *stream* is a queue whose work is done in order, some time after it was put there. An
*event* marks a place in a queue; another queue can wait for it, and the host can ask
whether it has passed. Nothing here makes the host wait.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acidmpi.arrays.flat import Array
from acidmpi.arrays.namespace import namespace_of

Stream = Any
Event = Any


class Accelerator(Protocol):
    """One device: a GPU behind CuPy, or a stand-in for tests.

    Calls queue work and return; the only answers that come at once are `done`'s.
    """

    name: str
    """What the summary calls the device."""

    uuid: str | None
    """Tells it from all others, or None where it has none."""

    def caller(self) -> Stream:
        """The stream on which the calling thread computes at the moment."""
        ...

    def stream(self) -> Stream:
        """A new stream, served before others, that waits for no other by itself."""
        ...

    def on(self, stream: Stream) -> AbstractContextManager[Any]:
        """Kernels launched and memory allocated inside go to `stream`."""
        ...

    def record(self, stream: Stream) -> Event:
        """An event behind all that `stream` holds now."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what `stream` is given from now on wait for `event`."""
        ...

    def done(self, event: Event) -> bool:
        """Whether `event` has passed."""
        ...

    def empty(self, size: int, dtype: npt.DTypeLike) -> Array:
        """Memory for the stream of `on`."""
        ...

    def clear(self, array: Array, stream: Stream) -> None:
        """Set `array` to zero."""
        ...

    def copy(self, destination: Array, origin: Array, stream: Stream) -> None:
        """Copy between arrays of one size, in either memory; the host's page-locked."""
        ...

    def pinned(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Page-locked host memory."""
        ...

    def gather(self, array: Array, where: npt.NDArray[np.intp]) -> Array:
        """A new array with the elements at `where`, on the stream of `on`."""
        ...


def is_on_device(array: Any) -> bool:
    """Whether an array's memory is a device's, as its interface says."""
    return not isinstance(array, np.ndarray) and hasattr(
        array, "__cuda_array_interface__"
    )


def is_writable(array: Any) -> bool:
    """Whether an array may be changed; a device's always may."""
    return bool(getattr(array.flags, "writeable", True))


def address_of(array: Any) -> int:
    """Where a contiguous array begins, in either memory."""
    if isinstance(array, np.ndarray):  # quicker than by `ctypes`
        return int(array.__array_interface__["data"][0])
    return int(array.__cuda_array_interface__["data"][0])


def to_host(array: Any) -> Array:
    """The values in host memory: the array itself if it is there, else a copy.

    A device's are copied in the order of CuPy's current stream, and waited for.
    """
    return array if isinstance(array, np.ndarray) else array.get()


def beside(array: Any, like: Any) -> Any:
    """`array` of the same kind as `like`: itself if it is, else a copy where that lies."""
    xp = namespace_of(like)
    if xp is namespace_of(array):
        return array
    return to_host(array) if xp is np else xp.asarray(array)


def store(array: Any, values: Array) -> None:
    """Copy host `values` into an array, in either memory; waits for a device's."""
    if isinstance(array, np.ndarray):
        array[...] = values
    elif array.flags.c_contiguous:
        array.set(np.ascontiguousarray(values, array.dtype).reshape(array.shape))
    else:
        array[...] = namespace_of(array).asarray(values, array.dtype)


class Buffers(tuple[Array, ...]):
    """Flat arrays and the device that they live on.

    Args:
        arrays: contiguous, of one dimension.
        accelerator: the device, or None for host memory.
    """

    accelerator: Accelerator | None

    def __new__(cls, arrays: Any, accelerator: Accelerator | None = None) -> "Buffers":
        """See the class."""
        made = super().__new__(cls, arrays)
        made.accelerator = accelerator
        return made


def accelerator_of(arrays: Any) -> Accelerator | None:
    """The device of `arrays`; None for host memory."""
    return getattr(arrays, "accelerator", None)


def here(accelerator: Accelerator | None) -> AbstractContextManager[Any]:
    """Inside, CuPy's current stream is the caller's, whoever made it."""
    if accelerator is None:
        return nullcontext()
    return accelerator.on(accelerator.caller())
