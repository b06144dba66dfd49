"""One NVIDIA GPU as an `Accelerator`, behind CuPy.

Written against CuPy 14 and 13; no device-wide synchronisation anywhere.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from acidmpi.arrays.accelerator import Event, Stream, address_of
from acidmpi.arrays.cuda.names import uuid_of
from acidmpi.arrays.flat import Array
from acidmpi.errors import ConfigError

HIGHEST_PRIORITY = -5
"""Lower is sooner; CUDA takes the nearest that the device has."""


class _Device(threading.local):
    """A GPU that is current inside `with`.

    To a thread that has used none, such as the communication loop's, it stays current:
    where CuPy made number 0 current again, CUDA 12 and 13 would give every rank a context
    there, of some hundred MiB, and refuse it where a GPU is one process's alone.

    Args:
        index: among those that CUDA shows this process.
    """

    def __init__(self, index: int) -> None:
        """Called once in each thread."""
        self._device = cupy.cuda.Device(index)
        if not cupy.cuda.driver.ctxGetCurrent():
            self._device.use()

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._device.__exit__(*error)


class _On:
    """A GPU and a stream that are current inside; quicker than a generator is."""

    __slots__ = ("_device", "_stream")

    def __init__(self, device: _Device, stream: Stream) -> None:
        self._device, self._stream = device, stream

    def __enter__(self) -> None:
        self._device.__enter__()
        try:
            self._stream.__enter__()
        except BaseException:
            self._device.__exit__()
            raise

    def __exit__(self, *error: Any) -> None:
        try:
            self._stream.__exit__(*error)
        finally:
            self._device.__exit__()


class Gpu:
    """One GPU.

    Args:
        index: among those that CUDA shows this process.
        handle: the stream that the calling thread computes on, as CUDA's number; None
            is CuPy's current one.
    """

    def __init__(self, index: int, handle: Callable[[], int] | None = None) -> None:
        self.index = index
        self._handle = handle
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        self.name: str = _text(properties["name"])
        self.uuid: str | None = uuid_of(index)
        self._device = _Device(index)
        self._foreign: dict[int, Stream] = {}
        """Streams made by others. CuPy would destroy such a stream together with the
        object that stands for it, so these objects live as long as the GPU's."""
        self._where: dict[int, tuple[Any, Any]] = {}

    def caller(self) -> Stream:
        """See `Accelerator`."""
        if self._handle is None:
            return cupy.cuda.get_current_stream(self.index)
        handle = self._handle()
        if handle == 0:
            return cupy.cuda.Stream.null
        found = self._foreign.get(handle)
        if found is None:
            with self._device:
                found = self._foreign[handle] = _foreign_stream(handle, self.index)
        return found

    def stream(self) -> Stream:
        """See `Accelerator`."""
        with self._device:
            return cupy.cuda.Stream(non_blocking=True, priority=HIGHEST_PRIORITY)

    def on(self, stream: Stream) -> AbstractContextManager[None]:
        """See `Accelerator`."""
        return _On(self._device, stream)

    def record(self, stream: Stream) -> Event:
        """See `Accelerator`."""
        with self._device:
            event = cupy.cuda.Event(disable_timing=True)
            event.record(stream)
        return event

    def wait(self, stream: Stream, event: Event) -> None:
        """See `Accelerator`."""
        with self._device:
            stream.wait_event(event)

    def done(self, event: Event) -> bool:
        """See `Accelerator`."""
        with self._device:
            return bool(event.done)

    def empty(self, size: int, dtype: npt.DTypeLike) -> Array:
        """See `Accelerator`.

        Raises:
            ConfigError: the device has not so much memory left.
        """
        try:
            made: Array = cupy.empty(size, dtype)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise self._full(size * np.dtype(dtype).itemsize, error) from error
        return made

    def clear(self, array: Array, stream: Stream) -> None:
        """See `Accelerator`."""
        place: Any = array.data
        with self._device:
            place.memset_async(0, array.nbytes, stream)

    def copy(self, destination: Array, origin: Array, stream: Stream) -> None:
        """See `Accelerator`."""
        runtime = cupy.cuda.runtime
        to, from_ = _address(destination), _address(origin)
        with self._device:
            runtime.memcpyAsync(
                to, from_, origin.nbytes, runtime.memcpyDefault, stream.ptr
            )

    def pinned(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """See `Accelerator`."""
        with self._device:
            memory = cupy.cuda.alloc_pinned_memory(max(size_bytes, 1))
        return np.frombuffer(memory, np.uint8, size_bytes)

    def gather(self, array: Array, where: npt.NDArray[np.intp]) -> Array:
        """See `Accelerator`; the places are copied to the device once."""
        held, places = self._where.get(id(where), (None, None))
        if held is not where:
            places = cupy.asarray(where)
            self._where[id(where)] = (where, places)
        found: Array = array[places]
        return found

    def _full(self, wanted_bytes: int, error: BaseException) -> ConfigError:
        with self._device:
            free, total = cupy.cuda.runtime.memGetInfo()
        return ConfigError(
            f"{wanted_bytes / 2**20:.0f} MiB more must fit into the memory of GPU "
            f"{self.index} ({self.name}), got {free / 2**20:.0f} MiB free of "
            f"{total / 2**20:.0f} ({error}); use a smaller batch or model, fewer ranks "
            "for each GPU, or method async, which holds no second copy"
        )


def _address(array: Any) -> int:
    """What `address_of` says, quicker."""
    on_gpu = isinstance(array, cupy.ndarray)
    return int(array.data.ptr) if on_gpu else address_of(array)


def _foreign_stream(handle: int, index: int) -> Stream:
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_Handle(handle))
    return cupy.cuda.ExternalStream(handle, index)


class _Handle:
    """A stream's number, in the way that CuPy asks for it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def view_of(owner: Any, index: int) -> Array:
    """An array that shares the memory of `owner`, which presents the CUDA interface.

    Args:
        owner: what holds it.
        index: its GPU. Where that is not the current one, CuPy would make a copy.
    """
    with cupy.cuda.Device(index):
        shared: Array = cupy.asarray(owner)
    return shared
