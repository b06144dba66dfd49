"""Gossip for any NumPy or CuPy array: no torch, no training loop assumed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import (
    Accelerator,
    Buffers,
    here,
    is_on_device,
    is_writable,
)
from acidmpi.errors import ConfigError
from acidmpi.kernels.hyper import Add
from acidmpi.mpi.communicators import told_to_all
from acidmpi.mpi.reductions import Comm
from acidmpi.worker.engine import Engine
from acidmpi.worker.keeping import Keeping
from acidmpi.worker.participant import Participant, make_options
from acidmpi.worker.state import Update

Array = NDArray[Any]


class Gossip(Participant):
    """Averages an array with neighbours while the caller keeps changing it.

    Every rank of `comm` makes one, with its own values; ranks exchange and average in
    pairs, in the background (`progress="thread"`) or whenever the caller polls
    (`progress="inline"`). `close`, or leaving the `with` block, leaves the global average
    in the array of every rank.

    The array is live: exchanges change it at any moment while the worker is open. Change
    it by `apply` only.

    Args:
        x: any shape, C-contiguous, writable; float64, float32, float16, or uint16 for
            the bits of bfloat16. An array of CuPy's stays on its GPU; what the caller's
            current stream does with it is in order with the exchanges.
        comm: an mpi4py intracommunicator; duplicated.
        metrics: a `telemetry.metrics.Metrics`, or None.
        keeping: checkpoints, or None for none.
        options: fields of `WorkerOptions`. The unit of time is the mean interval between
            calls of `apply`, or `unit_seconds`; until one of them is known no exchange
            is due.

    Raises:
        ConfigError: the array or an option is not acceptable.
        DisagreementError: ranks differ in shape, type or options.
        ThreadLevelError: MPI does not allow `progress="thread"`.
        TopologyError: the graph does not fit the number of ranks.
    """

    def __init__(
        self,
        x: Array,
        *,
        comm: Comm,
        metrics: Any = None,
        keeping: Keeping | None = None,
        **options: Any,
    ) -> None:
        with told_to_all(comm):
            chosen = make_options(options)
            self._shape = x.shape if is_on_device(x) else np.shape(x)
            self._x = _flat(x)
            self._device = device_of(x)
        self._engine = Engine(
            Buffers([self._x], self._device),
            comm,
            chosen,
            signature={
                "array": f"{self._x.dtype}{list(self._shape)}",
                "memory": "host" if self._device is None else "cuda",
            },
            rules=[Add()],
            metrics=metrics,
            keeping=keeping,
        )

    def apply(
        self,
        update: Array,
        loss: float | None = None,
        samples: int = 0,
        lr: float = 0.0,
    ) -> None:
        """Add `update` to the array: one gradient event.

        Args:
            update: same shape and type as x.
            loss: for telemetry, or None.
            samples: how many went into it, for telemetry.
            lr: for the record.

        Raises:
            ConfigError: it is no array, or shape or type differ.
            AcidError: communication failed here or on another rank.
        """
        flat = self._checked(update)
        event = [Update(0, 0, flat.size, flat, (), Add())]
        state = self._engine.parts.state
        self._engine.gradient(lambda: state.apply_gradient(event), loss, samples, lr)

    def read(self) -> Array:
        """A copy of x as it is now, mixed to this moment, in its own shape."""
        parts = self._engine.parts
        if self._device is None:
            out = np.empty_like(self._x)
        else:
            with here(self._device):
                out = self._device.empty(self._x.size, self._x.dtype)
        for chunk in parts.state.blocks:
            parts.state.copy(chunk, out[chunk.start : chunk.stop])
        return out.reshape(self._shape)

    def close(self, error: BaseException | None = None) -> None:
        """Answer until all ranks have closed; then x is the global average."""
        with here(self._device):
            self._engine.close(error)
        self._engine.parts.state.site.settle()

    def _checked(self, update: Any) -> Array:
        if not isinstance(update, np.ndarray | np.generic) and not is_on_device(update):
            raise ConfigError(
                "an update must be a NumPy or CuPy array, got "
                f"{type(update).__name__}; pass numpy.asarray(update, x.dtype)"
            )
        if is_on_device(update) != (self._device is not None):
            raise ConfigError(
                "an update must be in the same memory as x, got "
                f"{type(update).__name__} beside {type(self._x).__name__}; make it there"
            )
        if tuple(update.shape) != self._shape or update.dtype != self._x.dtype:
            raise ConfigError(
                f"an update must have x's form {self._x.dtype}{list(self._shape)}, got "
                f"{update.dtype}{list(update.shape)}"
            )
        usable = update.flags.c_contiguous and is_writable(update)
        whole: Array = update if usable else update.copy()
        return (
            whole.reshape(-1) if is_on_device(whole) else np.asarray(whole).reshape(-1)
        )


def device_of(x: Array) -> Accelerator | None:
    """The device that holds `x`, and the caller's stream as CuPy has it; None: the host.

    Raises:
        ConfigError: the device cannot be used.
    """
    if not is_on_device(x):
        return None
    from acidmpi.arrays.cuda.choice import make_gpu

    where: Any = x.device
    found: Accelerator = make_gpu(where.id)
    return found


def _flat(x: Any) -> Array:
    """A one-dimensional view, so that changes are seen in `x`."""
    if not isinstance(x, np.ndarray) and not is_on_device(x):
        raise ConfigError(f"x must be a NumPy or CuPy array, got {type(x).__name__}")
    if "torch" in type(x).__module__:
        raise ConfigError(
            "x must be a NumPy or CuPy array, got a tensor; pass cupy.asarray(tensor) "
            "for the same memory, or use acidmpi.Worker"
        )
    if x.dtype not in (np.float64, np.float32, np.float16, np.uint16):
        raise ConfigError(
            "x must be float64, float32, float16, or uint16 for the bits of bfloat16, "
            f"got {x.dtype}"
        )
    if not (x.flags.c_contiguous and getattr(x.flags, "writeable", True)):
        raise ConfigError(
            "x must be C-contiguous and writable, because it is changed in place; pass "
            "numpy.ascontiguousarray(x) and read the result from there"
        )
    if isinstance(x, np.ma.MaskedArray):
        raise ConfigError("x must be a plain array, got a masked one; pass x.filled()")
    # A matrix would stay one of two dimensions.
    flat: Array = (np.asarray(x) if isinstance(x, np.ndarray) else x).reshape(-1)
    return flat
