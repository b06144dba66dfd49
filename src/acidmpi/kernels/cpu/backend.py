"""The kernels on a CPU: check the arrays, find the machine code, call it."""

from collections.abc import Callable, Iterable
from threading import Lock

import numpy as np
import numpy.typing as npt

from acidmpi.kernels.cpu import store
from acidmpi.kernels.cpu.linker import Linker, addresses
from acidmpi.kernels.hyper import SGD, Adam, Add, Hyper, adam_scalars, sgd_scalars
from acidmpi.kernels.protocol import Array
from acidmpi.kernels.variants import LAYOUTS, Variant, check, kinds, needed

Function = Callable[..., int]


class CpuKernels:
    """Loops are compiled for the types at hand on first use, or before by `warm`."""

    def __init__(self) -> None:
        self._linker = Linker()
        self._lock = Lock()
        self._linked: dict[tuple[str, str], Function] = {}

    def warm(
        self,
        dtypes: Iterable[npt.DTypeLike],
        rules: Iterable[Hyper],
        x_tilde: bool = True,
    ) -> None:
        """See `Kernels.warm`."""
        for variant in needed(dtypes, rules, x_tilde):
            self._find(variant)

    def snapshot(
        self, x: Array, x_tilde: Array | None, out: Array, weight: float
    ) -> None:
        """See `Kernels.snapshot`."""
        if x_tilde is None:
            _length((x, out))
            np.copyto(out, x)
        else:
            self._run("snapshot", (x, x_tilde, out), weight)

    def apply_gradient(
        self,
        x: Array,
        x_tilde: Array | None,
        gradient: Array,
        state: tuple[Array, ...],
        weight: float,
        hyper: Hyper,
    ) -> None:
        """See `Kernels.apply_gradient`."""
        arrays = (x, x_tilde, gradient)
        match hyper:
            case SGD():
                memory = state if hyper.momentum else (None,)
                self._run("sgd", (*arrays, *memory), weight, *sgd_scalars(hyper))
            case Adam():
                self._run("adam", (*arrays, *state), weight, *adam_scalars(hyper))
            case Add():
                self._run("add", arrays, weight, hyper.zero_gradient)

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
        function(*places, _length(arrays), *scalars)

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


def _length(arrays: Iterable[Array | None]) -> int:
    # Compiled loops trust the length of `x`: a shorter array would be overrun.
    sizes = [array.size for array in arrays if array is not None]
    if min(sizes) != max(sizes):
        raise ValueError(f"arrays of one call must have one length, got {sizes}")
    return sizes[0]
