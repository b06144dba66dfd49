"""One contiguous array from many, and numbers in fewer bits.

All functions are pure but for `unpack` and `narrow`, which write where they are told to.
bfloat16 travels as uint16. Arrays are one-dimensional unless stated otherwise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from acidmpi.arrays import bfloat16
from acidmpi.arrays.flat import wide_dtype
from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.protocol import Array
from acidmpi.errors import ConfigError

WORD_BYTES = 4
"""Packed bits fill whole words of this size."""

_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)


def pack(arrays: Sequence[Array]) -> Array:
    """Lay contiguous arrays of one type one behind the other.

    Where they already lie so in memory, the result is a view of that memory, good as
    long as they are. Otherwise it is a copy.

    Raises:
        ConfigError: there is none, or their types differ.
    """
    _check_types(arrays)
    filled = [array for array in arrays if array.size]
    if not filled:
        return arrays[0]
    if len(filled) == 1:
        return filled[0]
    if not _adjacent(filled):
        packed: Array = namespace_of(filled[0]).concatenate(filled)
        return packed
    size = sum(array.size for array in filled)
    return _stretched(filled[0], size)


def unpack(packed: Array, arrays: Sequence[Array]) -> None:
    """Copy `packed` back into the arrays that it was packed from, unless it is they."""
    start = 0
    for array in arrays:
        piece = packed[start : start + array.size]
        if array.size and address(piece) != address(array):
            array[:] = piece
        start += array.size


def address(array: Array) -> int:
    """Where in memory the first element lies."""
    interface = getattr(array, "__cuda_array_interface__", None)
    return int((interface or array.__array_interface__)["data"][0])


def _check_types(arrays: Sequence[Array]) -> None:
    types = {array.dtype for array in arrays}
    if len(types) != 1:
        names = ", ".join(sorted(map(str, types))) or "no array at all"
        raise ConfigError(
            f"arrays of exactly one type share a bucket, got {names}; "
            "put each type into buckets of its own"
        )


def _adjacent(arrays: Sequence[Array]) -> bool:
    end = address(arrays[0])
    for array in arrays:
        if address(array) != end:
            return False
        end += array.nbytes
    return True


def _stretched(first: Array, size: int) -> Array:
    tricks = namespace_of(first).lib.stride_tricks
    stretched: Array = tricks.as_strided(first, (size,), (first.itemsize,))
    return stretched


def padded(array: Array, size: int) -> Array:
    """`array` with zeros behind it up to `size`; itself where nothing is to be added."""
    if array.size == size:
        return array
    longer: Array = namespace_of(array).zeros(size, array.dtype)
    longer[: array.size] = array
    return longer


def round_up(size: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `size`."""
    return -(-size // unit) * unit


def widen(array: Array) -> Array:
    """`array` in the type to calculate in: 16 bits as float32, others as they are."""
    if array.dtype == np.uint16:
        return bfloat16.decode(array)
    return array.astype(wide_dtype(array.dtype), copy=False)


def narrow(values: Array, out: Array) -> None:
    """Write float `values` into `out`, rounded to its type (uint16: bfloat16)."""
    if out.dtype == np.uint16:
        out[:] = brain(values)
    elif out.dtype == np.float16:
        out[:] = half(values)
    else:
        out[:] = values


def half(values: Array) -> Array:
    """The nearest float16; what is finite stays finite, at most 65504 in size.

    Infinities and NaN stay what they are.
    """
    with np.errstate(over="ignore"):
        rounded: Array = values.astype(np.float16)
    infinite = (rounded.view(np.uint16) & 0x7FFF) == 0x7C00
    if infinite.any():
        largest = np.finfo(np.float16).max
        infinite &= np.isfinite(values)
        # Numbers, not arrays: what CuPy writes through a mask is best one number.
        rounded[infinite & (values > 0)] = largest
        rounded[infinite & (values < 0)] = -largest
    return rounded


def brain(values: Array) -> Array:
    """The nearest bfloat16, ties to even, as uint16; NaN stays NaN."""
    xp = namespace_of(values)
    if xp is np:
        return bfloat16.encode(values)
    bits = values.astype(np.float32).view(np.uint32)
    upper = bits >> 16
    rounded = (bits + ((upper & 1) + 0x7FFF)) >> 16
    chosen: Array = xp.where(xp.isnan(values), upper | 0x40, rounded)
    return chosen.astype(np.uint16)


def bit_bytes(count: int) -> int:
    """Bytes that `count` bits take: whole words."""
    return round_up(count, 8 * WORD_BYTES) // 8


def pack_bits(bits: Array) -> Array:
    """Truth values, 8 to a byte, in whole words of 4 bytes; the rest is zero.

    Returns:
        uint8, of `bit_bytes(bits.size)` elements.
    """
    return padded(namespace_of(bits).packbits(bits), bit_bytes(bits.size))


def unpack_bits(packed: Array, count: int) -> Array:
    """The first `count` bits as uint8, each 0 or 1."""
    bits: Array = namespace_of(packed).unpackbits(packed)[:count]
    return bits


def bits_of_byte(xp: Any) -> Array:
    """The 8 bits of each byte, as an array of the module `xp`: made there, not sent."""
    if xp is np:
        return _BITS_OF_BYTE
    bits: Array = xp.unpackbits(xp.arange(256, dtype=np.uint8)).reshape(256, 8)
    return bits


def as_numbers(code: Array, dtype: np.dtype[Any]) -> Array:
    """The numbers whose bytes `code` holds: a view, or a copy where a GPU needs one.

    A GPU reads numbers of 8 bytes only where they are aligned, and codes that were
    gathered begin at any whole word.
    """
    if dtype.itemsize > WORD_BYTES and namespace_of(code) is not np:
        code = code.copy()
    return code.view(dtype)


def as_bytes(*parts: Any) -> Array:
    """Contiguous arrays of any types, one behind the other, as uint8."""
    views = [part.reshape(-1).view(np.uint8) for part in parts]
    joined: Array = namespace_of(views[0]).concatenate(views)
    return joined
