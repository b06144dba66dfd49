"""A GPU as benchmarks use it: arrays of random numbers, plain copies, exact times.

Launches are recorded once and replayed as a graph, because the host needs longer to launch
a kernel than a GPU needs for a short one; events on the device take the time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.kernels.protocol import Array, GuardedKernels

Launch = Callable[[], None]


class Clock(Protocol):
    """What a benchmark of kernels needs of a device; tests have one without a GPU."""

    kernels: GuardedKernels
    cache_bytes: int
    """What the last cache before the memory holds."""

    def free_bytes(self) -> int:
        """Memory that is left."""
        ...

    def draw(self, size: int) -> Array:
        """Normally distributed float32."""
        ...

    def word(self) -> Array:
        """One uint64, zero."""
        ...

    def copy(self, destination: Array, origin: Array) -> None:
        """A plain copy."""
        ...

    def recorded(self, launches: Sequence[Launch]) -> Callable[[int], float]:
        """(how often) → seconds that the device takes for all of `launches`, each time."""
        ...


class GpuClock:
    """The current GPU, behind CuPy.

    Raises:
        ConfigError: there is no CuPy, or no GPU that it can use.
    """

    def __init__(self) -> None:
        self._cupy = cupy_with_gpu()
        self.kernels = cast(GuardedKernels, load("cuda"))
        attributes = self._cupy.cuda.Device().attributes
        self.cache_bytes = int(attributes["L2CacheSize"])
        self._stream = self._cupy.cuda.Stream(non_blocking=True)

    def free_bytes(self) -> int:
        """See `Clock`."""
        self._cupy.get_default_memory_pool().free_all_blocks()
        return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def draw(self, size: int) -> Array:
        """See `Clock`."""
        drawn: Array = self._cupy.random.standard_normal(size, dtype="float32")
        return drawn

    def word(self) -> Array:
        """See `Clock`."""
        zero: Array = self._cupy.zeros(1, "uint64")
        return zero

    def copy(self, destination: Array, origin: Array) -> None:
        """See `Clock`."""
        stream = self._cupy.cuda.get_current_stream()
        place: Any = destination.data
        place.copy_from_device_async(origin.data, origin.nbytes, stream)

    def recorded(self, launches: Sequence[Launch]) -> Callable[[int], float]:
        """See `Clock`; the first replay, which is not timed, compiles and uploads."""
        cuda, stream = self._cupy.cuda, self._stream
        cuda.Device().synchronize()
        with stream:
            for launch in launches:  # compiles, which a recording must not
                launch()
            stream.begin_capture()
            for launch in launches:
                launch()
            graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()

        def replay(times: int) -> float:
            begin, end = cuda.Event(), cuda.Event()
            begin.record(stream)
            for _ in range(times):
                graph.launch(stream)
            end.record(stream)
            end.synchronize()
            return float(cuda.get_elapsed_time(begin, end)) * 1e-3

        return replay


def cupy_with_gpu() -> Any:
    """CuPy, once it is known that a GPU answers.

    Raises:
        ConfigError: it cannot be imported, or finds no GPU.
    """
    try:
        import cupy
    except ImportError as error:
        raise ConfigError(
            f"this benchmark needs a GPU and CuPy, which cannot be imported ({error}); "
            "install acidmpi[cuda12] or acidmpi[cuda13] on a machine with a GPU"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ConfigError(
            f"this benchmark needs a GPU, and CUDA finds none ({error}); "
            "run it where nvidia-smi lists one"
        ) from error
    if not count:
        raise ConfigError(
            "this benchmark needs a GPU, got none; make one visible with "
            "CUDA_VISIBLE_DEVICES"
        )
    return cupy
