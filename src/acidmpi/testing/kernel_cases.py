"""What the kernel contract is checked with: backends, arrays, rules and tolerances.

Every operation is run on slices of longer arrays, at odd offsets, whose surroundings
must stay as they were.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from acidmpi.arrays import bfloat16
from acidmpi.kernels import load
from acidmpi.kernels.hyper import SGD, Adam, Add, Hyper
from acidmpi.kernels.protocol import Array, Kernels, wide_dtype

DTYPES = ("float64", "float32", "float16", "uint16")
LENGTHS = (0, 1, 7, 1000)
OFFSETS = (0, 1, 13)
TOLERANCE = {"float64": 1e-14, "float32": 2e-6, "float16": 2**-10, "uint16": 2**-7}
"""A few roundings of numbers around one; a single rounding of 16-bit numbers."""

GUARD = 64
"""Elements that surround a slice."""

Operation = Callable[[Kernels, Any], None]
"""(kernels, arrays by name) → one call."""


class Subject(NamedTuple):
    """A backend under test, and the way into its memory and back."""

    kernels: Kernels
    put: Callable[[Array], Array]
    get: Callable[[Array], Array]


def host(kernels: Kernels) -> Subject:
    """A backend whose arrays are NumPy's."""
    return Subject(kernels, put=lambda array: array, get=lambda array: array)


def gpu() -> Subject:
    """The kernels of the current GPU.

    Raises:
        ConfigError: there is none that CuPy can use.
    """
    from acidmpi.kernels.cuda.backend import CudaKernels
    from acidmpi.kernels.cuda.device import Gpu

    device = Gpu()
    return Subject(CudaKernels(device), put=device.put, get=device.get)


BACKENDS: dict[str, Callable[[], Subject]] = {
    "cpu": lambda: host(load("cpu")),
    "reference": lambda: host(load("reference")),
}
"""A new backend is one more row."""

if find_spec("cupy") is not None:
    BACKENDS["cuda"] = gpu

REFERENCE = host(load("reference"))
"""What the others are compared with."""

RULES: tuple[Hyper, ...] = (
    Add(),
    SGD(0.1),
    SGD(0.1, weight_decay=0.03, maximize=True),
    SGD(0.1, momentum=0.9, first=True, dampening=0.5),
    SGD(0.1, momentum=0.9, dampening=0.5, weight_decay=0.03),
    SGD(0.1, momentum=0.9, weight_decay=0.03, nesterov=True, maximize=True),
    Adam(0.1, 0.9, 0.99, 1e-8, 0.03, decoupled=False, step=1),
    Adam(0.1, 0.4, 0.99, 1e-3, 0.03, decoupled=True, step=5, maximize=True),
)


def vectors(
    dtype: str, length: int, seed: int = 0, x_tilde: bool = True
) -> dict[str, Any]:
    """Random arrays for every role; `second` is positive, as squares are."""
    generator = np.random.default_rng([seed, length])

    def draw(kind: Any) -> Array:
        values = generator.standard_normal(length)
        return bfloat16.encode(values) if kind == "uint16" else values.astype(kind)

    wide = wide_dtype(dtype)
    names = ("x", "gradient", "out", "sent", "received")
    found: dict[str, Any] = {name: draw(dtype) for name in names}
    found |= {name: draw(wide) for name in ("x_tilde", "first")}
    found["second"] = np.abs(draw(wide))
    return found if x_tilde else found | {"x_tilde": None}


def cases(dtype: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Arrays and offsets: every length, with and without companions."""
    for length in LENGTHS:
        for offset in OFFSETS:
            yield vectors(dtype, length), offset
            yield vectors(dtype, length, x_tilde=False), offset


def run(
    subject: Subject, operation: Operation, arrays: dict[str, Any], offset: int = 0
) -> SimpleNamespace:
    """Apply `operation` to slices of the backend's memory; return what they became."""
    start = GUARD + offset
    before = {k: _padded(v, start) for k, v in arrays.items() if v is not None}
    memory = {name: subject.put(array.copy()) for name, array in before.items()}
    slices = {name: memory[name][start:-GUARD] for name in memory}
    operation(subject.kernels, SimpleNamespace(**{**arrays, **slices}))
    after = {name: subject.get(array) for name, array in memory.items()}
    for name, array in before.items():
        same(after[name][:start], array[:start], f"what precedes {name}")
        same(after[name][-GUARD:], array[-GUARD:], f"what follows {name}")
    results = {name: array[start:-GUARD] for name, array in after.items()}
    return SimpleNamespace(**{**arrays, **results})


def _padded(array: Array, start: int) -> Array:
    return np.pad(array, (start, GUARD), constant_values=7)


def snapshot(weight: float) -> Operation:
    """A snapshot, as `run` takes it."""
    return lambda kernels, v: kernels.snapshot(v.x, v.x_tilde, v.out, weight)


def exchange(a: float, b: float) -> Operation:
    """An exchange event, as `run` takes it."""
    return lambda k, v: k.apply_exchange(v.x, v.x_tilde, v.sent, v.received, a, b)


def mix(weight: float) -> Operation:
    """Mixing in place: an exchange with oneself."""
    return lambda kernels, v: kernels.apply_exchange(
        v.x, v.x_tilde, v.x, v.x_tilde, weight, -weight
    )


def step(rule: Hyper, weight: float = 0.0) -> Operation:
    """A gradient event, as `run` takes it."""
    return lambda kernels, v: kernels.apply_gradient(
        v.x, v.x_tilde, v.gradient, _state(rule, v), weight, rule
    )


def _state(rule: Hyper, v: Any) -> tuple[Array, ...]:
    if isinstance(rule, Adam):
        return v.first, v.second
    return (v.first,) if isinstance(rule, SGD) and rule.momentum else ()


def numbers(array: Array) -> Array:
    """The numbers in an array, bfloat16 decoded."""
    return bfloat16.decode(array) if array.dtype == np.uint16 else array


def same(actual: Array, expected: Array, what: str) -> None:
    """Fail unless both hold the same bits."""
    assert actual.tobytes() == expected.tobytes(), f"some bit differs in {what}"


def close(actual: Any, expected: Any, dtype: str, *names: str, steps: int = 1) -> None:
    """Fail unless the arrays called `names` agree up to rounding."""
    for name in names:
        one, other = numbers(getattr(actual, name)), numbers(getattr(expected, name))
        bound = steps * TOLERANCE[dtype]
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound, err_msg=name)
