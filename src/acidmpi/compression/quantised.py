"""Few bits for each element, rounded by chance so that the expectation is exact.

Rounding up or down with the right probabilities makes an unbiased estimate of the
gradient. Nothing is owed, so there is no error feedback; the price is variance. Exact
zeros stay zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.codecs import Layout, Moment, dealt
from acidmpi.compression.options import check_choice, check_multiple
from acidmpi.compression.packing import (
    as_bytes,
    as_numbers,
    bit_bytes,
    pack_bits,
    unpack_bits,
)
from acidmpi.compression.protocol import Array, Place, Reduction, Spec
from acidmpi.compression.reductions import Gathered, TwoPhase


@dataclass(frozen=True)
class QSGD:
    """Whole multiples of a fraction of each block's norm (Alistarh et al., 2017).

    With L = 2^(bits-1) - 1 an element x becomes norm/L times one of the two whole numbers
    next to L x / norm. Two phases: chunks are summed in float32 and quantised again.
    """

    bits: Literal[2, 4, 8] = 8
    norm: Literal["max", "2"] = "max"
    """Largest magnitude (less variance), or Euclidean norm (more zeros)."""

    block: int = 512
    """Elements that share a norm."""

    def __post_init__(self) -> None:
        check_choice("bits", self.bits, (2, 4, 8))
        check_choice("norm", self.norm, ("max", "2"))
        check_multiple("block", self.block, 32)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "qsgd"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        return TwoPhase(self.name, _LevelRows(self), specs, place)


class _LevelRows:
    """Norms of a row's blocks, then the multiples in two's complement."""

    def __init__(self, options: QSGD) -> None:
        self._options = options
        self._largest = 2 ** (options.bits - 1) - 1

    def columns(self, size: int, ranks: int) -> int:
        """See `codecs.RowCodec`."""
        columns, block = dealt(size, ranks, 32), self._options.block
        return columns if columns <= block else dealt(size, ranks, block)

    def encode(self, rows: Array, valid: int, moment: Moment) -> Array:
        """See `codecs.RowCodec`."""
        width = min(self._options.block, rows.shape[1])
        blocks = rows.reshape(len(rows), -1, width)
        norms = self._norms(blocks)
        xp = namespace_of(rows)
        levels = blocks / xp.where(norms > 0, norms, 1)[:, :, None]
        levels *= self._largest
        levels += xp.asarray(moment.own().random(levels.shape, dtype=rows.dtype))
        xp.floor(levels, out=levels)
        xp.clip(levels, -self._largest, self._largest, out=levels)
        whole = levels.astype(np.int8).reshape(rows.shape)
        code: Array = xp.hstack(
            [norms.view(np.uint8), _squeeze(whole, self._options.bits)]
        )
        return code

    def decode(self, code: Array, columns: int, dtype: np.dtype[np.floating]) -> Array:
        """See `codecs.RowCodec`."""
        width = min(self._options.block, columns)
        head = columns // width * dtype.itemsize
        norms = namespace_of(code).ascontiguousarray(code[:, :head]).view(dtype)
        whole = _stretch(code[:, head:], self._options.bits)
        blocks: Array = whole.reshape(len(code), -1, width).astype(dtype)
        blocks *= (norms / self._largest)[:, :, None]
        return blocks.reshape(len(code), columns)

    def row_bytes(self, columns: int, itemsize: int) -> int:
        """See `codecs.RowCodec`."""
        blocks = columns // min(self._options.block, columns)
        return blocks * itemsize + columns * self._options.bits // 8

    def _norms(self, blocks: Array) -> Array:
        xp = namespace_of(blocks)
        largest: Array = xp.abs(blocks).max(axis=2)
        if self._options.norm == "max":
            return largest
        shares = blocks / xp.where(largest > 0, largest, 1)[:, :, None]
        norms: Array = largest * xp.sqrt((shares * shares).sum(axis=2))
        return norms


def _squeeze(whole: Array, bits: int) -> Array:
    """Rows of int8 that fit into `bits`, 8/bits of them to a byte."""
    if bits == 8:
        return whole.view(np.uint8)
    small = whole.view(np.uint8) & (2**bits - 1)
    per_byte = 8 // bits
    squeezed: Array = small[:, ::per_byte].copy()
    for place in range(1, per_byte):
        squeezed |= small[:, place::per_byte] << (bits * place)
    return squeezed


def _stretch(squeezed: Array, bits: int) -> Array:
    """The int8 that `_squeeze` was given."""
    xp = namespace_of(squeezed)
    if bits == 8:
        same: Array = xp.ascontiguousarray(squeezed).view(np.int8)
        return same
    per_byte = 8 // bits
    whole: Array = xp.empty((len(squeezed), squeezed.shape[1] * per_byte), np.int8)
    for place in range(per_byte):
        top = squeezed << (8 - bits * (place + 1))
        whole[:, place::per_byte] = top.view(np.int8) >> (8 - bits)
    return whole


@dataclass(frozen=True)
class TernGrad:
    """-1, 0 or 1 times the largest magnitude of each parameter (Wen et al., 2017).

    An element x is sent as its sign with probability |x| / largest, else as zero: two
    bits. Gathered: traffic grows with the ranks. The paper's clipping, which trades
    variance for bias, is not done.
    """

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "terngrad"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        return Gathered(self.name, _Ternary(), specs, place, feedback=False)


class _Ternary:
    """Scales of all parameters, then bits of those above zero, and of those below."""

    def encode(self, values: Array, layout: Layout, moment: Moment) -> Array:
        """See `codecs.Codec`."""
        xp = namespace_of(values)
        magnitude, parts = xp.abs(values), layout.segments
        scales = xp.array([magnitude[part].max() for part in parts], values.dtype)
        threshold = xp.asarray(moment.own().random(values.size, dtype=values.dtype))
        for part, scale in zip(parts, scales, strict=True):
            threshold[part] *= scale
        sent = magnitude > threshold
        above, below = sent & (values > 0), sent & (values < 0)
        return as_bytes(scales, pack_bits(above), pack_bits(below))

    def add(self, code: Array, out: Array, layout: Layout, weight: float) -> None:
        """See `codecs.Codec`."""
        parts = layout.segments
        head, plane = len(parts) * out.itemsize, bit_bytes(layout.size)
        scales = as_numbers(code[:head], out.dtype) * weight
        above = unpack_bits(code[head : head + plane], layout.size).view(np.int8)
        below = unpack_bits(code[head + plane :], layout.size).view(np.int8)
        signs = above - below
        for part, scale in zip(parts, scales, strict=True):
            out[part] += signs[part] * scale

    def code_bytes(self, layout: Layout, itemsize: int) -> int:
        """See `codecs.Codec`."""
        return len(layout.segments) * itemsize + 2 * bit_bytes(layout.size)
