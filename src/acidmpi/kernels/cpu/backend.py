"""The kernels on a CPU: check the arrays, find the machine code, call it."""

from collections.abc import Callable
from threading import Lock

import numpy as np

from acidmpi.kernels.compiled import CompiledKernels, one_length
from acidmpi.kernels.cpu import store
from acidmpi.kernels.cpu.linker import Linker, addresses
from acidmpi.kernels.protocol import Array
from acidmpi.kernels.variants import LAYOUTS, Variant, check, kinds

Function = Callable[..., int]


class CpuKernels(CompiledKernels):
    """Loops are compiled for the types at hand on first use, or before by `warm`."""

    def __init__(self) -> None:
        self._linker = Linker()
        self._lock = Lock()
        self._linked: dict[tuple[str, str], Function] = {}

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
        arrays = (x, x_tilde, sent, received)
        places = addresses(arrays)
        if places[:2] == places[2:]:
            self._call("mix", arrays[:2], places[:2], (a, b))
        else:
            self._call("exchange", arrays, places, (a, b))

    def _prepare(self, variant: Variant) -> None:
        self._find(variant)

    def _copy(self, out: Array, x: Array) -> None:
        np.copyto(out, x)

    def _run(
        self, loop: str, arrays: tuple[Array | None, ...], *scalars: float
    ) -> None:
        self._call(loop, arrays, addresses(arrays), scalars)

    def _call(
        self,
        loop: str,
        arrays: tuple[Array | None, ...],
        places: list[int | None],
        scalars: tuple[float, ...],
    ) -> None:
        types = kinds(arrays)
        function = self._linked.get((loop, types))
        if function is None:
            function = self._find(Variant(loop, types))
        function(*places, one_length(arrays), *scalars)

    def _find(self, variant: Variant) -> Function:
        with self._lock:
            if variant not in self._linked:
                check(variant)
                self._linked[variant] = self._link(variant)
            return self._linked[variant]

    def _link(self, variant: Variant) -> Function:
        symbol = "_".join(variant)
        code = store.fetch(symbol, lambda: _compile(variant, symbol))
        scalars = LAYOUTS[variant.loop].scalars
        return self._linker.link(code, symbol, len(variant.arrays), scalars)


def _compile(variant: Variant, symbol: str) -> bytes:
    # Half a second and 50 MB that a process pays only if nobody has compiled before.
    from acidmpi.kernels.cpu.compiler import compile_object

    return compile_object(variant, symbol)
