"""What backends with compiled loops have in common: which loop an update is.

A loop is a row of `variants.LAYOUTS`; a backend finds it for the types at hand and runs it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import numpy.typing as npt

from acidmpi.kernels.hyper import SGD, Adam, Add, Hyper, adam_scalars, sgd_scalars
from acidmpi.kernels.protocol import Array, OneByOne, Step
from acidmpi.kernels.variants import Variant, needed


class CompiledKernels(OneByOne, ABC):
    """Loops are compiled for the types at hand on first use, or before by `warm`."""

    @abstractmethod
    def _prepare(self, variant: Variant) -> None:
        """Compile a loop, unless it is there."""

    @abstractmethod
    def _copy(self, out: Array, x: Array) -> None:
        """Copy between arrays of one type and length."""

    @abstractmethod
    def _run(
        self, loop: str, arrays: tuple[Array | None, ...], *scalars: float
    ) -> None:
        """Run a loop on arrays of one length."""

    def warm(
        self,
        dtypes: Iterable[npt.DTypeLike],
        rules: Iterable[Hyper],
        x_tilde: bool = True,
    ) -> None:
        """See `Kernels.warm`."""
        for variant in needed(dtypes, rules, x_tilde):
            self._prepare(variant)

    def snapshot(
        self, x: Array, x_tilde: Array | None, out: Array, weight: float
    ) -> None:
        """See `Kernels.snapshot`."""
        if x_tilde is None:
            one_length((x, out))
            self._copy(out, x)
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
        call = gradient_call((x, x_tilde, gradient, state, hyper), weight)
        self._run(call.loop, call.arrays, *call.scalars)


class Call(NamedTuple):
    """A loop and what it works on."""

    loop: str
    arrays: tuple[Array | None, ...]
    scalars: tuple[float, ...]


def gradient_call(step: Step, weight: float) -> Call:
    """The loop that `Kernels.apply_gradient` is."""
    x, x_tilde, gradient, state, hyper = step
    arrays = (x, x_tilde, gradient)
    match hyper:
        case SGD():
            memory = state if hyper.momentum else (None,)
            return Call("sgd", (*arrays, *memory), (weight, *sgd_scalars(hyper)))
        case Adam():
            return Call("adam", (*arrays, *state), (weight, *adam_scalars(hyper)))
        case Add():
            return Call("add", arrays, (weight, hyper.zero_gradient))


def one_length(arrays: Iterable[Array | None]) -> int:
    """The length that all arrays have; absent ones have any.

    Raises:
        ValueError: they differ.
    """
    # Compiled loops trust the length of `x`: a shorter array would be overrun.
    sizes = [array.size for array in arrays if array is not None]
    if min(sizes) != max(sizes):
        raise ValueError(f"arrays of one call must have one length, got {sizes}")
    return int(sizes[0])
