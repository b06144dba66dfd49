"""The kernels in NumPy and float64: slow, plain, what the others are compared with."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from acidmpi.arrays import bfloat16
from acidmpi.kernels.hyper import SGD, Adam, Add, Hyper
from acidmpi.kernels.protocol import Array, OneByOne

Vector = npt.NDArray[np.float64]


class ReferenceKernels(OneByOne):
    """Every result is computed in float64 and rounded once, when it is stored."""

    def warm(
        self,
        dtypes: Iterable[npt.DTypeLike],
        rules: Iterable[Hyper],
        x_tilde: bool = True,
    ) -> None:
        """Nothing is compiled here."""

    def snapshot(
        self, x: Array, x_tilde: Array | None, out: Array, weight: float
    ) -> None:
        """See `Kernels.snapshot`."""
        if x_tilde is None or weight == 0:
            out[:] = x
        else:
            _write(out, _mixed(_read(x), _read(x_tilde), weight)[0])

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
        value = _read(x)
        if x_tilde is not None:
            value, companion = _mixed(value, _read(x_tilde), weight)
        update = _update(value, _read(gradient), state, hyper)
        _write(x, value + update)
        if x_tilde is not None:
            _write(x_tilde, companion + update)
        if hyper.zero_gradient:
            gradient[:] = 0

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
        difference = _read(sent) - _read(received)
        _write(x, _read(x) - a * difference)
        if x_tilde is not None:
            _write(x_tilde, _read(x_tilde) - b * difference)


def _read(array: Array) -> Vector:
    values = bfloat16.decode(array) if array.dtype == np.uint16 else array
    return values.astype(np.float64)


def _write(array: Array, values: Vector) -> None:
    array[:] = bfloat16.encode(values) if array.dtype == np.uint16 else values


def _mixed(x: Vector, x_tilde: Vector, weight: float) -> tuple[Vector, Vector]:
    # A weight of zero is the baseline bit for bit, even beside an infinite `x_tilde`.
    if weight == 0:
        return x, x_tilde
    flow = weight * (x_tilde - x)
    return x + flow, x_tilde - flow


def _update(
    x: Vector, gradient: Vector, state: tuple[Array, ...], hyper: Hyper
) -> Vector:
    match hyper:
        case SGD():
            return _sgd(x, gradient, state, hyper)
        case Adam():
            return _adam(x, gradient, state, hyper)
        case Add():
            return gradient


def _sgd(x: Vector, gradient: Vector, state: tuple[Array, ...], hyper: SGD) -> Vector:
    slope = -gradient if hyper.maximize else gradient
    if hyper.weight_decay:
        slope = slope + hyper.weight_decay * x
    if not hyper.momentum:
        return -hyper.lr * slope
    (momentum,) = state
    heavy = slope
    if not hyper.first:
        heavy = hyper.momentum * _read(momentum) + (1 - hyper.dampening) * slope
    _write(momentum, heavy)
    return -hyper.lr * (slope + hyper.momentum * heavy if hyper.nesterov else heavy)


def _adam(x: Vector, gradient: Vector, state: tuple[Array, ...], hyper: Adam) -> Vector:
    slope = -gradient if hyper.maximize else gradient
    if hyper.weight_decay and not hyper.decoupled:
        slope = slope + hyper.weight_decay * x
    first = hyper.beta_1 * _read(state[0]) + (1 - hyper.beta_1) * slope
    second = hyper.beta_2 * _read(state[1]) + (1 - hyper.beta_2) * slope**2
    _write(state[0], first)
    _write(state[1], second)
    root = np.sqrt(second) / hyper.second_root + hyper.eps
    update = -hyper.step_size * first / root
    if hyper.weight_decay and hyper.decoupled:
        update = update - hyper.lr * hyper.weight_decay * x
    return update
