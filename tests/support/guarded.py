"""Host kernels that can leave a gradient out, as a device's can, told by a word."""

import numpy as np

from acidmpi.arrays import bfloat16
from acidmpi.kernels.protocol import OneByOne


class GuardedHost:
    """See `acidmpi.kernels.protocol.GuardedKernels`.

    Args:
        kernels: of the host.
    """

    def __init__(self, kernels):
        self._kernels = kernels

    def __getattr__(self, name):
        return getattr(self._kernels, name)

    def find_nonfinite(self, gradient, word, start):
        find_nonfinite(gradient, word, start)

    def unless(self, word):
        return _Unless(self._kernels, word)


class _Unless(OneByOne):
    def __init__(self, kernels, word):
        self._kernels, self._word = kernels, word

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        arguments = x, x_tilde, gradient, state, weight, hyper
        apply_unless(self._kernels, int(self._word[0]), *arguments)


def find_nonfinite(gradient, word, start):
    """Note the first place, as the complement of its position."""
    values = bfloat16.decode(gradient) if gradient.dtype == np.uint16 else gradient
    (places,) = np.nonzero(~np.isfinite(values))
    if places.size:
        word[0] = max(word[0], ~np.uint64(start + places[0]))


def apply_unless(kernels, word, x, x_tilde, gradient, state, weight, hyper):
    """The gradient event; with a word the mixing alone."""
    if word == 0:
        kernels.apply_gradient(x, x_tilde, gradient, state, weight, hyper)
        return
    if x_tilde is not None and weight:
        kernels.apply_exchange(x, x_tilde, x, x_tilde, weight, -weight)
    if hyper.zero_gradient:
        gradient[:] = 0
