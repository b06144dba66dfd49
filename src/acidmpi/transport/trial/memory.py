"""Memory that a trial sends from: a GPU's, or the host's in its place.

The CUDA driver is called through ctypes: a trial has to start fast, and must not depend on
which package owns the memory later.
"""

import ctypes
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class NoDevice(Exception):
    """There is no device, or CUDA refuses; the text says why."""


class Memory(Protocol):
    """Buffers whose content is reached by copies only."""

    def allocate(self, size: int) -> int:
        """Address of `size` bytes, kept until the process ends."""
        ...

    def put(self, address: int, content: Bytes) -> None:
        """Copy from the host; complete on return."""
        ...

    def get(self, address: int, size: int) -> Bytes:
        """Copy to the host; complete on return."""
        ...


class HostMemory:
    """The stand-in: host memory behind the same calls."""

    def __init__(self) -> None:
        self._kept: list[Bytes] = []

    def allocate(self, size: int) -> int:
        """See `Memory.allocate`."""
        self._kept.append(np.zeros(size, np.uint8))
        return int(self._kept[-1].ctypes.data)

    def put(self, address: int, content: Bytes) -> None:
        """See `Memory.put`."""
        ctypes.memmove(address, content.ctypes.data, content.nbytes)

    def get(self, address: int, size: int) -> Bytes:
        """See `Memory.get`."""
        content = np.empty(size, np.uint8)
        ctypes.memmove(content.ctypes.data, address, size)
        return content


class CudaMemory:
    """Plain allocations of one GPU, in its primary context, by the CUDA driver.

    Args:
        device: its number among the visible ones, taken modulo their count.

    Raises:
        NoDevice: there is no driver, no device, or no room.
    """

    def __init__(self, device: int) -> None:
        self._driver = _driver()
        self._call("cuInit", 0)
        number, handle, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGetCount", ctypes.byref(number))
        if not number.value:
            raise NoDevice("CUDA sees no device")
        self._call("cuDeviceGet", ctypes.byref(handle), device % number.value)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        self._call("cuCtxSetCurrent", context)

    def allocate(self, size: int) -> int:
        """See `Memory.allocate`."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def put(self, address: int, content: Bytes) -> None:
        """See `Memory.put`."""
        origin = ctypes.c_void_p(content.ctypes.data)
        self._copy("cuMemcpyHtoD_v2", ctypes.c_uint64(address), origin, content.nbytes)

    def get(self, address: int, size: int) -> Bytes:
        """See `Memory.get`."""
        content = np.empty(size, np.uint8)
        place = ctypes.c_void_p(content.ctypes.data)
        self._copy("cuMemcpyDtoH_v2", place, ctypes.c_uint64(address), size)
        return content

    def _copy(self, name: str, to: object, origin: object, size: int) -> None:
        self._call(name, to, origin, ctypes.c_size_t(size))
        # From pageable memory a copy may return before its last bytes have arrived.
        self._call("cuCtxSynchronize")

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise NoDevice(f"{name}: {self._text(status)}")

    def _text(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        return f"error {status} ({(text.value or b'unknown').decode()})"


def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoDevice(f"there is no CUDA driver here ({error})") from error


def memory_of(kind: str, device: int) -> Memory:
    """Memory of a kind, `cuda` or `host`."""
    return CudaMemory(device) if kind == "cuda" else HostMemory()
