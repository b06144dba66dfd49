"""What every backend offers: three updates on flat arrays.

`x` holds parameters, `x_tilde` their A2CiD2 companions; `x_tilde=None` is the baseline
(eta = 0): no companion exists and weights are ignored. Arrays are one-dimensional,
contiguous, of one length, and may be any slice of a buffer; a backend allocates none.

Types: `x`, `gradient`, `out` and messages share one of float64, float32, float16 or
uint16, which stands for bfloat16. `x_tilde` and the optimiser's state are float32 if
`x` has 16 bits, else of its type. Arithmetic is done in the type of `x_tilde`; a 16-bit
result is rounded to nearest even, and NaN and infinity stay what they are.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from acidmpi.arrays.flat import wide_dtype as wide_dtype
from acidmpi.kernels.hyper import Hyper

Array = npt.NDArray[Any]
"""A NumPy array, or what behaves like one on a device."""


Step = tuple[Array, Array | None, Array, tuple[Array, ...], Hyper]
"""One update: x, x̃, the gradient, the optimiser's state and the rule."""


class Kernels(Protocol):
    """One backend."""

    def warm(
        self,
        dtypes: Iterable[npt.DTypeLike],
        rules: Iterable[Hyper],
        x_tilde: bool = True,
    ) -> None:
        """Make ready all that a run needs, so that no later call has to compile.

        Args:
            dtypes: those of `x`.
            rules: one of each kind that will be applied; of their numbers only whether
                `momentum` is zero matters.
            x_tilde: whether the companions exist.
        """
        ...

    def snapshot(
        self, x: Array, x_tilde: Array | None, out: Array, weight: float
    ) -> None:
        """Write `x + weight * (x_tilde - x)` to `out`; only read the other two."""
        ...

    def apply_gradient(
        self,
        x: Array,
        x_tilde: Array | None,
        gradient: Array,
        state: tuple[Array, ...],
        weight: float,
        hyper: Hyper,
    ) -> None:
        """Mix `x` and `x_tilde` by `weight`, then add the update of `hyper` to both.

        Mixing reads both old values. The update, weight decay included, is computed
        from the mixed `x` alone and is the same number for both.
        """
        ...

    def apply_gradients(self, steps: Sequence[Step], weight: float) -> None:
        """`apply_gradient` for each of `steps`, whose arrays have nothing in common."""
        ...

    def apply_exchange(
        self,
        x: Array,
        x_tilde: Array | None,
        sent: Array,
        received: Array,
        a: float,
        b: float,
    ) -> None:
        """Subtract `a * m` from `x`, `b * m` from `x_tilde`; `m = sent - received`.

        If `sent` is `x`, `received` is `x_tilde` and `b = -a`, this mixes by `a`.
        """
        ...


class OneByOne:
    """Of a backend that makes updates one after the other."""

    def apply_gradients(self: Kernels, steps: Sequence[Step], weight: float) -> None:
        """See `Kernels.apply_gradients`."""
        for x, x_tilde, gradient, state, hyper in steps:
            self.apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class GuardedKernels(Kernels, Protocol):
    """A device's: it can leave a gradient out without the host's knowing."""

    def find_nonfinite(self, gradient: Array, word: Array, start: int) -> None:
        """Note in `word` where the first NaN or infinity is, unless an earlier one is.

        Args:
            gradient: part of something longer.
            word: one uint64; zero if nothing was found so far, else the complement of
                the lowest position.
            start: position of its first element.
        """
        ...

    def unless(self, word: Array) -> Kernels:
        """Kernels whose updates leave the gradient out if `word` is not zero.

        They mix then, set the gradient to zero if that is asked for, and leave the
        optimiser's state as it is. The word is read when the work is done.
        To keep them is quicker: they remember where arrays lie.
        """
        ...
