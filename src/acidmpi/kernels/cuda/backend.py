"""The kernels on a GPU: check the arrays, find the kernel, launch it.

Nothing here waits: a call returns once its kernel is queued on the stream that is current
for CuPy in this thread. Scalars are arguments of the launch.
"""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from acidmpi.kernels.compiled import CompiledKernels, one_length
from acidmpi.kernels.cuda import finite
from acidmpi.kernels.cuda.protocol import Device, Launch
from acidmpi.kernels.cuda.source import PACK_BYTES, THREADS, names, source, takes_word
from acidmpi.kernels.hyper import Hyper
from acidmpi.kernels.protocol import Array, Kernels
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

    def warm(
        self,
        dtypes: Iterable[npt.DTypeLike],
        rules: Iterable[Hyper],
        x_tilde: bool = True,
    ) -> None:
        """See `Kernels.warm`."""
        dtypes = tuple(dtypes)
        super().warm(dtypes, rules, x_tilde)
        for dtype in dtypes:
            self._find(Variant(finite.LOOP, np.dtype(dtype).char))

    def find_nonfinite(self, gradient: Array, word: Array, start: int) -> None:
        """See `GuardedKernels.find_nonfinite`."""
        scalars = [self._device.number("q", start), self._device.address(word)]
        self._launch(Variant(finite.LOOP, gradient.dtype.char), [gradient], scalars)

    def unless(self, word: Array) -> Kernels:
        """See `GuardedKernels.unless`."""
        return _Unless(self, self._device.address(word))

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
        self.run(loop, arrays, scalars)

    def run(
        self,
        loop: str,
        arrays: tuple[Array | None, ...],
        scalars: tuple[float, ...],
        word: int = 0,
    ) -> None:
        """Queue a loop; `word` is the address that `takes_word` speaks of, or 0."""
        present = [array for array in arrays if array is not None]
        named = zip(LAYOUTS[loop].scalars, scalars, strict=True)
        numbers = [self._device.number(kind, value) for kind, value in named]
        if takes_word(loop):
            numbers.append(word)
        self._launch(Variant(loop, kinds(arrays)), present, numbers)

    def _launch(
        self, variant: Variant, present: list[Array], numbers: list[Any]
    ) -> None:
        n = one_length(present)
        packs, single = self._find(variant)
        if n == 0:
            return
        device = self._device
        places = [device.address(array) for array in present]
        aligned = reduce(or_, places) % PACK_BYTES == 0
        width = PACK_BYTES // present[0].itemsize if aligned else 1
        arguments = [*places, device.number("q", n), *numbers]
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
                text = _text(variant)
                self._compiled[variant] = self._device.compile(text, names(variant))
            return self._compiled[variant]


class _Unless(CompiledKernels):
    """Kernels that mix only, where a word in the device's memory is not zero."""

    def __init__(self, kernels: CudaKernels, word: int) -> None:
        self._kernels, self._word = kernels, word
        self.apply_exchange = kernels.apply_exchange

    def _prepare(self, variant: Variant) -> None:
        self._kernels._prepare(variant)

    def _copy(self, out: Array, x: Array) -> None:
        self._kernels._copy(out, x)

    def _run(
        self, loop: str, arrays: tuple[Array | None, ...], *scalars: float
    ) -> None:
        self._kernels.run(loop, arrays, scalars, self._word)


def _text(variant: Variant) -> str:
    if variant.loop == finite.LOOP:
        return finite.source(variant)
    check(variant)
    return source(variant)


def _gpu() -> Device:
    from acidmpi.kernels.cuda.device import Gpu

    return Gpu()
