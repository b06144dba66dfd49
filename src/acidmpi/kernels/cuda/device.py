"""The current GPU, behind CuPy: compiles, keeps what it compiled on disk, launches."""

from typing import Any

import numpy as np

from acidmpi.errors import ConfigError
from acidmpi.kernels.cuda.protocol import Launch
from acidmpi.kernels.cuda.source import OPTIONS
from acidmpi.kernels.protocol import Array


class Gpu:
    """The GPU that is current when this is made; launches go to CuPy's current stream.

    Raises:
        ConfigError: there is no CuPy, or no GPU that it can use.
    """

    def __init__(self) -> None:
        self._cupy = _import_cupy()
        self.multiprocessors = self._multiprocessors()

    def compile(self, source: str, names: tuple[str, ...]) -> tuple[Launch, ...]:
        """Kernels of one source, by name; CuPy keeps the binary in its cache on disk."""
        module = self._cupy.RawModule(code=source, options=OPTIONS)
        return tuple(self._launcher(module.get_function(name)) for name in names)

    def address(self, array: Array) -> int:
        """Where a contiguous array begins.

        Raises:
            TypeError: it is not an array of CuPy's.
        """
        if not isinstance(array, self._cupy.ndarray):
            raise TypeError(
                "kernels of a GPU take CuPy arrays, got "
                f"{type(array).__name__}; wrap device memory with cupy.asarray"
            )
        return int(array.data.ptr)

    def structure(self, data: bytes) -> Any:
        """An argument by value: CuPy takes any NumPy array of one element for it."""
        return np.frombuffer(data, np.dtype((np.void, len(data))))

    def copy(self, destination: Array, origin: Array) -> None:
        """Copy between arrays of one type, in the order of the current stream."""
        stream = self._cupy.cuda.get_current_stream()
        place: Any = destination.data
        place.copy_from_device_async(origin.data, origin.nbytes, stream)

    def put(self, array: Array) -> Array:
        """A copy of a NumPy array in device memory."""
        return self._cupy.asarray(array)  # type: ignore[no-any-return]

    def get(self, array: Array) -> Array:
        """A copy of a device's array in host memory; waits for it."""
        return self._cupy.asnumpy(array)  # type: ignore[no-any-return]

    def _multiprocessors(self) -> int:
        try:
            count = self._cupy.cuda.Device().attributes["MultiProcessorCount"]
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise ConfigError(
                f"kernels of a GPU need one that CUDA can use, got: {error}; "
                "take device cpu, or make the GPU and its driver visible"
            ) from error
        return int(count)

    def _launcher(self, function: Any) -> Launch:
        def launch(blocks: int, threads: int, arguments: list[Any]) -> None:
            function((blocks,), (threads,), arguments)

        return launch


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise ConfigError(
            "kernels of a GPU need CuPy for this CUDA, and it cannot be imported "
            f"({error}); install acidmpi[cuda12] or acidmpi[cuda13]"
        ) from error
    return cupy
