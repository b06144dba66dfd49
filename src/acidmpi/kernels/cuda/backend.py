"""The kernels on a GPU: check the arrays, find the kernel, launch it.

Nothing here waits: a call returns once its kernel is queued on the stream that is current
for CuPy in this thread.
"""

from collections.abc import Iterable, Sequence
from operator import is_
from threading import Lock

import numpy as np
import numpy.typing as npt

from acidmpi.kernels.compiled import Call, CompiledKernels, gradient_call, one_length
from acidmpi.kernels.cuda import finite
from acidmpi.kernels.cuda.batches import Batch, Kind, batches, blocks_for
from acidmpi.kernels.cuda.protocol import Device, Launch
from acidmpi.kernels.cuda.source import PACK_BYTES, THREADS, names, source
from acidmpi.kernels.hyper import Hyper
from acidmpi.kernels.protocol import Array, Kernels, Step
from acidmpi.kernels.variants import Variant, check


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
            self._compile(Variant(finite.LOOP, np.dtype(dtype).char))

    def find_nonfinite(self, gradient: Array, word: Array, start: int) -> None:
        """See `GuardedKernels.find_nonfinite`."""
        n, place = one_length([gradient]), self._device.address(gradient)
        kind = Kind(Variant(finite.LOOP, gradient.dtype.char), place % PACK_BYTES == 0)
        launch = self.find(kind)
        if n:
            arguments = [place, n, start, self._device.address(word)]
            launch(blocks_for(self._device, kind, n), THREADS, arguments)

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
        self._compile(variant)

    def _copy(self, out: Array, x: Array) -> None:
        self._device.copy(out, x)

    def _run(
        self, loop: str, arrays: tuple[Array | None, ...], *scalars: float
    ) -> None:
        calls = [Call(loop, arrays, scalars)]
        self.launch(self.batches(calls), calls)

    def batches(self, calls: Sequence[Call]) -> list[Batch]:
        """The launches that `calls` are; their kernels are compiled."""
        found = batches(self._device, calls)
        for batch in found:
            self.find(batch.kind)
        return found

    def launch(self, found: list[Batch], calls: Sequence[Call], word: int = 0) -> None:
        """Queue them; `word` is the address that `takes_word` speaks of, or 0."""
        for batch in found:
            table = self._device.structure(batch.table(calls))
            arguments = [table, word] if batch.guarded else [table]
            self.find(batch.kind)(batch.blocks, THREADS, arguments)

    def find(self, kind: Kind) -> Launch:
        """The kernel."""
        found = self._compiled.get(kind.variant)
        packs, single = self._compile(kind.variant) if found is None else found
        return packs if kind.aligned else single

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
        self._calls: list[Call] = []
        self._batches: list[Batch] = []
        """What `_calls` are; they keep their arrays alive."""
        self.apply_exchange = kernels.apply_exchange

    def apply_gradients(self, steps: Sequence[Step], weight: float) -> None:
        """See `Kernels.apply_gradients`; one launch for as many as it takes."""
        self._launch([gradient_call(step, weight) for step in steps])

    def _prepare(self, variant: Variant) -> None:
        self._kernels._prepare(variant)

    def _copy(self, out: Array, x: Array) -> None:
        self._kernels._copy(out, x)

    def _run(
        self, loop: str, arrays: tuple[Array | None, ...], *scalars: float
    ) -> None:
        self._launch([Call(loop, arrays, scalars)])

    def _launch(self, calls: list[Call]) -> None:
        if not _same(calls, self._calls):
            self._calls, self._batches = calls, self._kernels.batches(calls)
        self._kernels.launch(self._batches, calls, self._word)


def _same(calls: list[Call], others: list[Call]) -> bool:
    """Whether they work on the very same arrays."""
    return len(calls) == len(others) and all(
        mine.loop == other.loop and all(map(is_, mine.arrays, other.arrays))
        for mine, other in zip(calls, others, strict=True)
    )


def _text(variant: Variant) -> str:
    if variant.loop == finite.LOOP:
        return finite.source(variant)
    check(variant)
    return source(variant)


def _gpu() -> Device:
    from acidmpi.kernels.cuda.device import Gpu

    return Gpu()
