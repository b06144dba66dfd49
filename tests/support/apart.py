"""A device whose arrays are no NumPy arrays, and torch gradients that are taken for its."""

import numpy as np

from acidmpi.arrays.torch import views
from support import cupy_like
from support.instant_device import InstantDevice


class Apart(InstantDevice):
    """Its arrays are no NumPy arrays; an event passes after it was asked a few times."""

    def __init__(self, patience=0):
        super().__init__()
        self._patience = patience

    def record(self, stream):
        return [self._patience]

    def done(self, event):
        event[0] -= 1
        return event[0] < 0

    def empty(self, size, dtype):
        return cupy_like.ndarray(np.empty(size, dtype))

    def copy(self, destination, origin, stream):
        kinds = {type(destination), type(origin)}
        assert kinds == {np.ndarray, cupy_like.ndarray}
        to, from_ = (getattr(a, "_host", a) for a in (destination, origin))
        super().copy(to, from_, stream)


def pretend(monkeypatch, device, module=None):
    """Tensors on the CPU are taken for `device`'s from here on.

    Args:
        monkeypatch: pytest's.
        device: a stand-in.
        module: the one that makes arrays of them; None: that of gradients.
    """
    if module is None:
        from acidmpi.parallel.torch import gradients as module
    monkeypatch.setattr(module, "accelerator_for", lambda _: device)
    if hasattr(module, "keep"):
        monkeypatch.setattr(module, "keep", _kept_elsewhere)
    else:
        monkeypatch.setattr(module, "as_array", _array_elsewhere)


def _array_elsewhere(flat):
    return cupy_like.ndarray(views.as_array(flat))


def _kept_elsewhere(flat):
    kept = views.keep(flat)
    return kept._replace(array=cupy_like.ndarray(kept.array))
