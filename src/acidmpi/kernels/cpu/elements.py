"""Elements of an array as numbers to compute with: float64 if stored so, else float32.

Numba has no float16 on a CPU, so compiled code tells the 16-bit types apart by the
integers that stand for them: uint16 is bfloat16, int16 a float16. Conversions are
bit arithmetic without branches and become vector instructions.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

_HALF_INFINITY = np.uint32(0x7C00)
_HALF_QUIET_NAN = np.uint32(0x7E00)
_HALF_SMALLEST_NORMAL = np.uint32(0x0400)
_HALF_OVERFLOW = np.uint32(0x47800000)  # 65536 as a float32
_BIAS = np.uint32(112 << 23)  # between the exponents of float16 and float32
_ONE_HALF = np.uint32(0x3F000000)  # 0.5, whose last place is float16's smallest number
_INFINITY = np.uint32(0x7F800000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)

_INLINE: Any = {"forceinline": True}

Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """Let loops call `function`, which must not stay a call: calls prevent vectors."""
    marked: Function = register_jitable(**_INLINE)(function)
    return marked


def load(array: Any, i: int) -> Any:
    """Element `i`, widened exactly (compiled code only)."""


def store(array: Any, i: int, value: float) -> Any:
    """Put the number nearest to `value` at `i`, ties to even (compiled code only)."""


def real(scalar: float, array: Any) -> Any:
    """`scalar` in the type that elements of `array` compute in (compiled code only)."""


@inlined
def _from_bfloat16(bits: Any) -> Any:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@inlined
def _to_bfloat16(value: Any) -> Any:
    bits = np.float32(value).view(np.uint32)
    upper = np.uint32(bits >> np.uint32(16))
    odd = upper & np.uint32(1)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    is_nan = np.uint32(bits & _MAGNITUDE) > _INFINITY
    return np.uint16(upper | np.uint32(0x40) if is_nan else rounded)


@inlined
def _from_float16(half: Any) -> Any:
    bits = np.uint32(np.uint16(half))
    sign = np.uint32(np.uint32(bits & np.uint32(0x8000)) << np.uint32(16))
    magnitude = np.uint32(bits & np.uint32(0x7FFF))
    shifted = np.uint32(magnitude << np.uint32(13))
    normal = np.uint32(shifted + _BIAS)
    # Half's subnormals count its smallest number, which is the last place of 0.5.
    count = np.uint32(magnitude | _ONE_HALF).view(np.float32) - np.float32(0.5)
    subnormal = np.float32(count).view(np.uint32)
    special = np.uint32(shifted | _INFINITY)
    finite = normal if magnitude >= _HALF_SMALLEST_NORMAL else subnormal
    result = special if magnitude >= _HALF_INFINITY else finite
    return np.uint32(result | sign).view(np.float32)


@inlined
def _to_float16(value: Any) -> Any:
    bits = np.float32(value).view(np.uint32)
    sign = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000))
    magnitude = np.uint32(bits & _MAGNITUDE)
    odd = np.uint32(np.uint32(magnitude >> np.uint32(13)) & np.uint32(1))
    # Carries run into the exponent, and from the largest number into infinity.
    raised = np.uint32(magnitude - _BIAS + np.uint32(0xFFF) + odd)
    normal = np.uint32(raised >> np.uint32(13))
    # Adding 0.5 makes the hardware round to multiples of half's smallest number.
    sum_ = np.float32(magnitude.view(np.float32) + np.float32(0.5))
    subnormal = np.uint32(sum_.view(np.uint32) - _ONE_HALF)
    payload = np.uint32(np.uint32(magnitude >> np.uint32(13)) & np.uint32(0x3FF))
    nan = np.uint32(payload | _HALF_QUIET_NAN)
    is_small = magnitude < np.uint32(_BIAS + np.uint32(1 << 23))
    result = subnormal if is_small else normal
    result = _HALF_INFINITY if magnitude >= _HALF_OVERFLOW else result
    result = nan if magnitude > _INFINITY else result
    return np.int16(np.uint16(result | sign))


def _load(array: Any, i: Any) -> Any:
    if array.dtype == types.uint16:
        return lambda array, i: _from_bfloat16(array[i])
    if array.dtype == types.int16:
        return lambda array, i: _from_float16(array[i])
    return lambda array, i: array[i]


def _store(array: Any, i: Any, value: Any) -> Any:
    if array.dtype == types.uint16:

        def store_bfloat16(array: Any, i: Any, value: Any) -> None:
            array[i] = _to_bfloat16(value)

        return store_bfloat16
    if array.dtype == types.int16:

        def store_float16(array: Any, i: Any, value: Any) -> None:
            array[i] = _to_float16(value)

        return store_float16

    def store_as_is(array: Any, i: Any, value: Any) -> None:
        array[i] = value

    return store_as_is


def _real(scalar: Any, array: Any) -> Any:
    if array.dtype == types.float64:
        return lambda scalar, array: np.float64(scalar)
    return lambda scalar, array: np.float32(scalar)


# Not strict: annotations would have to be repeated on every lambda above.
overload(load, jit_options=_INLINE, strict=False)(_load)
overload(store, jit_options=_INLINE, strict=False)(_store)
overload(real, jit_options=_INLINE, strict=False)(_real)
