"""The loops, plain Python that Numba compiles for one combination of types at a time.

Arrays are pointers to `n` elements. An absent `x_tilde` or momentum is `None`: its
branches vanish in compilation. Flags choose between values, never between stores, so
that every loop becomes vector instructions; hence two loops where the gradient may be
zeroed. There is no fast-math: with weight zero `x` gets the baseline's arithmetic, bit
for bit, and NaN stays NaN.
"""

from typing import Any

import numpy as np

from acidmpi.kernels.cpu.elements import inlined, load, real, store

Array = Any
"""A pointer to elements of one type."""


def snapshot(x: Array, x_tilde: Array, out: Array, n: int, weight: float) -> None:
    """`out = x + weight * (x_tilde - x)`."""
    share = real(weight, x)
    for i in range(n):
        value, _ = _mixed_one(i, x, x_tilde, share)
        store(out, i, value)


def exchange(
    x: Array, x_tilde: Any, sent: Array, received: Array, n: int, a: float, b: float
) -> None:
    """`m = sent - received; x -= a * m; x_tilde -= b * m`."""
    for i in range(n):
        _exchange_one(i, x, x_tilde, sent, received, real(a, x), real(b, x))


def mix(x: Array, x_tilde: Array, n: int, a: float, b: float) -> None:
    """An exchange of `x` with `x_tilde`: nothing else that a store could overlap."""
    for i in range(n):
        _exchange_one(i, x, x_tilde, x, x_tilde, real(a, x), real(b, x))


def sgd(
    x: Array,
    x_tilde: Any,
    gradient: Array,
    momentum: Any,
    n: int,
    weight: float,
    lr: float,
    keep: float,
    gain: float,
    decay: float,
    nesterov: bool,
    maximize: bool,
    first: bool,
    zero_gradient: bool,
) -> None:
    """Mix, then `momentum = keep * momentum + gain * slope` and a step of `lr`."""
    share = real(weight, x)
    rates = real(lr, x), real(keep, x), real(gain, x), real(decay, x)
    flags = nesterov, maximize, first
    if zero_gradient:
        for i in range(n):
            _sgd_one(i, x, x_tilde, gradient, momentum, share, rates, flags)
            gradient[i] = 0
    else:
        for i in range(n):
            _sgd_one(i, x, x_tilde, gradient, momentum, share, rates, flags)


def adam(
    x: Array,
    x_tilde: Any,
    gradient: Array,
    first: Array,
    second: Array,
    n: int,
    weight: float,
    lr: float,
    beta_1: float,
    beta_2: float,
    eps: float,
    decay: float,
    shrink: float,
    root: float,
    maximize: bool,
    zero_gradient: bool,
) -> None:
    """Mix, then Adam's step: `decay` is added to the gradient, `shrink` taken from `x`.

    `lr` and `root` carry the corrections of the bias.
    """
    share = real(weight, x)
    arrays = x, x_tilde, gradient, first, second
    betas = real(beta_1, x), real(1 - beta_1, x), real(beta_2, x), real(1 - beta_2, x)
    rates = real(lr, x), real(eps, x), real(root, x)
    decays = real(decay, x), real(shrink, x), real(1 - shrink, x)
    if zero_gradient:
        for i in range(n):
            _adam_one(i, arrays, share, betas, rates, decays, maximize)
            gradient[i] = 0
    else:
        for i in range(n):
            _adam_one(i, arrays, share, betas, rates, decays, maximize)


def add(
    x: Array,
    x_tilde: Any,
    gradient: Array,
    n: int,
    weight: float,
    zero_gradient: bool,
) -> None:
    """Mix, then add the gradient to both."""
    share = real(weight, x)
    if zero_gradient:
        for i in range(n):
            _add_one(i, x, x_tilde, gradient, share)
            gradient[i] = 0
    else:
        for i in range(n):
            _add_one(i, x, x_tilde, gradient, share)


@inlined
def _mixed_one(i: Any, x: Any, x_tilde: Any, share: Any) -> Any:
    value = load(x, i)
    if x_tilde is None:
        return value, value
    companion = x_tilde[i]
    flow = share * (companion - value)
    # Not `value + 0 * ...`, which would lose the sign of a zero and spread infinities.
    mixing = share != 0
    return (
        value + flow if mixing else value,
        companion - flow if mixing else companion,
    )


@inlined
def _store_one(i: Any, x: Any, x_tilde: Any, value: Any, companion: Any) -> None:
    store(x, i, value)
    if x_tilde is not None:
        x_tilde[i] = companion


@inlined
def _exchange_one(
    i: Any, x: Any, x_tilde: Any, sent: Any, received: Any, a: Any, b: Any
) -> None:
    difference = load(sent, i) - load(received, i)
    value = load(x, i) - a * difference
    if x_tilde is not None:
        x_tilde[i] = x_tilde[i] - b * difference
    store(x, i, value)


@inlined
def _add_one(i: Any, x: Any, x_tilde: Any, gradient: Any, share: Any) -> None:
    value, companion = _mixed_one(i, x, x_tilde, share)
    update = load(gradient, i)
    _store_one(i, x, x_tilde, value + update, companion + update)


@inlined
def _slope_one(i: Any, gradient: Any, value: Any, decay: Any, maximize: Any) -> Any:
    slope = load(gradient, i)
    slope = -slope if maximize else slope
    return slope + decay * value if decay != 0 else slope


@inlined
def _sgd_one(
    i: Any,
    x: Any,
    x_tilde: Any,
    gradient: Any,
    momentum: Any,
    share: Any,
    rates: Any,
    flags: Any,
) -> None:
    lr, keep, gain, decay = rates
    nesterov, maximize, first = flags
    value, companion = _mixed_one(i, x, x_tilde, share)
    slope = _slope_one(i, gradient, value, decay, maximize)
    if momentum is not None:
        heavy = keep * momentum[i] + gain * slope
        heavy = slope if first else heavy
        momentum[i] = heavy
        slope = slope + keep * heavy if nesterov else heavy
    update = lr * slope
    _store_one(i, x, x_tilde, value - update, companion - update)


@inlined
def _adam_one(
    i: Any, arrays: Any, share: Any, betas: Any, rates: Any, decays: Any, maximize: Any
) -> None:
    x, x_tilde, gradient, first, second = arrays
    beta_1, gain_1, beta_2, gain_2 = betas
    lr, eps, root = rates
    decay, shrink, remain = decays
    value, companion = _mixed_one(i, x, x_tilde, share)
    slope = _slope_one(i, gradient, value, decay, maximize)
    # Interpolation from the nearer end, as torch does it.
    old = first[i]
    change = slope - old
    mean = old + gain_1 * change if gain_1 < 0.5 else slope - beta_1 * change
    square = beta_2 * second[i] + gain_2 * slope * slope
    first[i] = mean
    second[i] = square
    update = lr * mean / (np.sqrt(square) / root + eps)
    shrunk = value * remain if shrink != 0 else value
    companion = companion - shrink * value if shrink != 0 else companion
    _store_one(i, x, x_tilde, shrunk - update, companion - update)
