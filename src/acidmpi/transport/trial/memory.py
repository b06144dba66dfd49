"""Memory that a trial sends from: a GPU's, or the host's in its place."""

import ctypes
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acidmpi.transport.trial.driver import Driver

Bytes = NDArray[np.uint8]


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
    """Plain allocations of one GPU, in its primary context.

    Args:
        device: its number among the visible ones, taken modulo their count.

    Raises:
        NoDevice: there is no driver, no device, or no room.
    """

    def __init__(self, device: int) -> None:
        self._driver = Driver()
        self._driver.enter(device)

    def allocate(self, size: int) -> int:
        """See `Memory.allocate`."""
        address = ctypes.c_uint64()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
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
        self._driver.call(name, to, origin, ctypes.c_size_t(size))
        # From pageable memory a copy may return before its last bytes have arrived.
        self._driver.call("cuCtxSynchronize")


def memory_of(kind: str, device: int) -> Memory:
    """Memory of a kind, `cuda` or `host`."""
    return CudaMemory(device) if kind == "cuda" else HostMemory()
