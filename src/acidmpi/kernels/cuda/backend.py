"""The kernels on a GPU: check the arrays, find the kernel, launch it.

Nothing here waits: a call returns once its kernel is queued on the stream that is current
for CuPy in this thread. Scalars are arguments of the launch.
"""

from threading import Lock

from acidmpi.kernels.compiled import CompiledKernels, one_length
from acidmpi.kernels.cuda.protocol import Device, Launch
from acidmpi.kernels.cuda.source import PACK_BYTES, THREADS, names, source
from acidmpi.kernels.protocol import Array
from acidmpi.kernels.variants import LAYOUTS, Variant, check, kinds

BLOCKS_PER_MULTIPROCESSOR = 32
"""Most blocks of a launch: enough to fill it several times over, few enough that what
every thread does before its loop costs nothing."""


class CudaKernels(CompiledKernels):
    """Kernels are compiled for the types at hand on first use, or before by `warm`.

    One lock guards the table of compiled kernels; calls share nothing else.

    Args:
        device: where they run; by default the current GPU.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._device = device if device is not None else _gpu()
        self._lock = Lock()
        self._compiled: dict[Variant, tuple[Launch, ...]] = {}

    def apply_exchange(
        self,
        x: Array,
        x_tilde: Array | None,
        sent: Array,
        received: Array,
        a: float,
        b: float,
    ) -> None:
        """See `Kernels.apply_exchange`."""
        if x_tilde is not None and sent is x and received is x_tilde:
            self._run("mix", (x, x_tilde), a, b)
        else:
            self._run("exchange", (x, x_tilde, sent, received), a, b)

    def _prepare(self, variant: Variant) -> None:
        self._find(variant)

    def _copy(self, out: Array, x: Array) -> None:
        self._device.copy(out, x)

    def _run(
        self, loop: str, arrays: tuple[Array | None, ...], *scalars: float
    ) -> None:
        present = [array for array in arrays if array is not None]
        n = one_length(present)
        packs, single = self._find(Variant(loop, kinds(arrays)))
        if n == 0:
            return
        device = self._device
        places = [device.address(array) for array in present]
        aligned = not any(place % PACK_BYTES for place in places)
        width = PACK_BYTES // present[0].itemsize if aligned else 1
        numbers = zip(LAYOUTS[loop].scalars, scalars, strict=True)
        arguments = [*places, device.number("q", n)]
        arguments += [device.number(kind, value) for kind, value in numbers]
        launch = packs if aligned else single
        launch(self._blocks(n // width + 1), THREADS, arguments)

    def _blocks(self, turns: int) -> int:
        most = BLOCKS_PER_MULTIPROCESSOR * self._device.multiprocessors
        return min(-(-turns // THREADS), most)

    def _find(self, variant: Variant) -> tuple[Launch, ...]:
        found = self._compiled.get(variant)
        return found if found is not None else self._compile(variant)

    def _compile(self, variant: Variant) -> tuple[Launch, ...]:
        with self._lock:
            if variant not in self._compiled:
                check(variant)
                text, symbols = source(variant), names(variant)
                self._compiled[variant] = self._device.compile(text, symbols)
            return self._compiled[variant]


def _gpu() -> Device:
    from acidmpi.kernels.cuda.device import Gpu

    return Gpu()
