"""What the GPU's kernels need of a device: a GPU behind CuPy, or a stand-in for tests."""

from collections.abc import Callable
from typing import Any, Protocol

from acidmpi.kernels.protocol import Array

Launch = Callable[[int, int, list[Any]], None]
"""(blocks, threads, arguments) → queued."""


class Device(Protocol):
    """Where kernels run: a GPU behind CuPy, or a stand-in for tests."""

    multiprocessors: int

    def compile(self, source: str, names: tuple[str, ...]) -> tuple[Launch, ...]:
        """Kernels of one source, by name; compiled once and kept."""
        ...

    def address(self, array: Array) -> int:
        """Where a contiguous array begins."""
        ...

    def structure(self, data: bytes) -> Any:
        """An argument that is a structure, passed by value; a whole number is one too."""
        ...

    def copy(self, destination: Array, origin: Array) -> None:
        """Copy, in the order of the stream."""
        ...
