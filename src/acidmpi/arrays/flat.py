"""Flat buffers in host memory: what lies where, and how a buffer is cut into chunks.

A buffer is a one-dimensional C-contiguous NumPy array of float64, float32, float16 or
uint16, where uint16 stands for bfloat16 (the upper half of a float32's bits).
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from acidmpi.errors import ConfigError

Array = npt.NDArray[Any]

DTYPES = tuple(np.dtype(name) for name in ("float64", "float32", "float16", "uint16"))
"""What a buffer may hold."""

_LINE_BYTES = 64


def wide_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Type of x̃ and of optimiser state beside values of `dtype`: at least float32."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


class View(NamedTuple):
    """Where one named array lies in its buffer; strides count elements, not bytes."""

    start: int
    stop: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class FlatBuffer:
    """One contiguous vector, its gradient, and what they consist of."""

    values: Array
    """The numbers themselves."""

    gradient: Array | None = None
    """Same size and type; None where gradients live elsewhere."""

    views: Mapping[str, View] = field(default_factory=dict)
    """Named arrays, in order of their position."""

    def __post_init__(self) -> None:
        _check_vector("values", self.values)
        if self.gradient is None:
            return
        _check_vector("gradient", self.gradient)
        ours, theirs = _describe(self.values), _describe(self.gradient)
        if ours != theirs:
            raise ConfigError(f"a gradient has its values' form {ours}, got {theirs}")

    def named(self, name: str, source: Array | None = None) -> Array:
        """The array `name` as a view of the values, or of `source` laid out alike."""
        start, stop, shape, strides = self.views[name]
        piece = (self.values if source is None else source)[start:stop]
        strides_bytes = tuple(stride * piece.itemsize for stride in strides)
        return np.lib.stride_tricks.as_strided(piece, shape, strides_bytes)


def _describe(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _check_vector(what: str, array: Array) -> None:
    if array.ndim != 1 or not array.flags.c_contiguous:
        raise ConfigError(
            f"{what} must be one-dimensional and contiguous, got {_describe(array)}; "
            "pass `np.ravel(array)`"
        )
    if array.dtype not in DTYPES:
        names = ", ".join(str(dtype) for dtype in DTYPES)
        raise ConfigError(f"{what} must be one of {names}, got {array.dtype}")


class Piece(NamedTuple):
    """One item of a layout, before neighbours are merged into runs."""

    buffer: int
    group: int
    start: int
    stop: int


class Run(NamedTuple):
    """Neighbouring pieces that share buffer, group and key: one kernel launch."""

    buffer: int
    group: int
    start: int
    stop: int
    key: Hashable
    pieces: tuple[int, ...]
    """Their indices in the layout."""


def merge(pieces: Iterable[Piece], keys: Iterable[Hashable]) -> tuple[Run, ...]:
    """Join neighbours of equal buffer, group and key; None leaves a piece out."""
    runs: list[Run] = []
    for index, (piece, key) in enumerate(zip(pieces, keys, strict=True)):
        if key is None:
            continue
        last = runs[-1] if runs else None
        if (
            last
            and last[:2] == piece[:2]
            and (last.stop, last.key) == (piece.start, key)
        ):
            runs[-1] = last._replace(stop=piece.stop, pieces=(*last.pieces, index))
        else:
            runs.append(Run(*piece, key, (index,)))
    return tuple(runs)


class Chunk(NamedTuple):
    """A piece of a buffer that travels as one message."""

    buffer: int
    start: int
    stop: int


def chunks(buffers: Sequence[Array], chunk_bytes: int) -> tuple[Chunk, ...]:
    """Cut every buffer into nearly equal chunks of at most `chunk_bytes`.

    Boundaries are multiples of 64 bytes wherever a chunk can hold 64 bytes, so that no
    two chunks share a cache line. Equal buffers give equal chunks on every rank.
    """
    return tuple(
        Chunk(index, start, stop)
        for index, buffer in enumerate(buffers)
        for start, stop in _cut(buffer.size, buffer.itemsize, chunk_bytes)
    )


def _cut(size: int, itemsize: int, chunk_bytes: int) -> list[tuple[int, int]]:
    if chunk_bytes < itemsize:
        raise ConfigError(
            f"a chunk must hold one element of {itemsize} bytes, got {chunk_bytes=}"
        )
    unit = _LINE_BYTES // itemsize if chunk_bytes >= _LINE_BYTES else 1
    units = -(-size // unit)
    if not units:
        return []
    count = -(-units // (chunk_bytes // (unit * itemsize)))
    marks = [min(size, k * units // count * unit) for k in range(count + 1)]
    return list(pairwise(marks))
