"""One bit for each element: signs, packed 32 to a word of 4 bytes.

A sign has no zero. What these methods do about exact zeros:

- a parameter (`EFSign`: a block) that is zero throughout has scale zero, and stays zero;
- a zero among others counts as positive. With error feedback it goes up and down by one
  scale and is zero in the mean. `SignNorm` and `SignVote` can keep such zeros at the
  price of a second bit (`mask_zeros`): weights that were pruned and rows of an embedding
  that were not used then stay where they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.codecs import Layout, Moment, dealt
from acidmpi.compression.options import check_flag, check_multiple
from acidmpi.compression.packing import (
    as_bytes,
    as_numbers,
    bit_bytes,
    bits_of_byte,
    pack_bits,
    unpack_bits,
)
from acidmpi.compression.protocol import Array, Place, Reduction, Spec
from acidmpi.compression.reductions import Gathered, TwoPhase

_PIECE = 1 << 16
"""Elements decoded at a time, so that they stay in a cache."""

Levels = Callable[[Array], tuple[float, float]]
"""What a cleared and a set bit stand for in one parameter."""


@dataclass(frozen=True)
class SignNorm:
    """Signs, times the mean magnitude of each parameter.

    The scale L1 / n is the one that leaves the least behind (Bernstein et al., 2018;
    Karimireddy et al., 2019). Gathered: traffic grows with the ranks, and from 64 ranks
    on a dense mean is smaller.
    """

    error_feedback: bool = True
    mask_zeros: bool = False
    """Whether exact zeros are sent as zeros, which takes a second bit."""

    def __post_init__(self) -> None:
        check_flag("error_feedback", self.error_feedback)
        check_flag("mask_zeros", self.mask_zeros)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "signnorm"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        codec = _Bits(_mean_magnitude, two_sided=False, mask=self.mask_zeros)
        feedback = self.error_feedback
        return Gathered(self.name, codec, specs, place, feedback=feedback)


@dataclass(frozen=True)
class SignVote:
    """The sign that most ranks have: 1, -1, or 0 where votes are equal.

    signSGD with majority vote (Bernstein et al., 2019): a result has no magnitude, so it
    wants a learning rate of its own, and nothing is owed: there is no error feedback. A
    rank whose parameter is zero throughout abstains.
    """

    mask_zeros: bool = False
    """Whether a rank abstains for each exact zero, which takes a second bit."""

    def __post_init__(self) -> None:
        check_flag("mask_zeros", self.mask_zeros)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "signvote"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        codec = _Bits(_one_vote, two_sided=False, mask=self.mask_zeros)
        return Gathered(
            self.name, codec, specs, place, feedback=False, settle=_majority
        )


@dataclass(frozen=True)
class OneBit:
    """Signs that stand for the mean of what was negative and of what was not.

    1-bit SGD (Seide et al., 2014), with one pair of means for each parameter.
    """

    error_feedback: bool = True

    def __post_init__(self) -> None:
        check_flag("error_feedback", self.error_feedback)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "onebit"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        codec = _Bits(_means_of_halves, two_sided=True, mask=False)
        feedback = self.error_feedback
        return Gathered(self.name, codec, specs, place, feedback=feedback)


@dataclass(frozen=True)
class EFSign:
    """Signs in both directions, with error feedback at both ends.

    Each rank sums the signs of one chunk of a bucket and sends the signs of that sum, so
    traffic does not grow with the ranks (Zheng et al., 2019; the same in 1-bit Adam,
    Tang et al., 2021). Scales are mean magnitudes of blocks of a bucket.
    """

    block: int = 512
    """Elements that share a scale."""

    def __post_init__(self) -> None:
        check_multiple("block", self.block, 32)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "efsign"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        codec = _SignRows(self.block)
        return TwoPhase(self.name, codec, specs, place, feedback=True)


def _mean_magnitude(values: Array) -> tuple[float, float]:
    scale = namespace_of(values).abs(values).mean()
    return -scale, scale


def _one_vote(values: Array) -> tuple[float, float]:
    vote = values.any() * 1.0
    return -vote, vote


def _means_of_halves(values: Array) -> tuple[float, float]:
    positive = values >= 0
    count = int(namespace_of(values).count_nonzero(positive))
    total, magnitude = values.sum(), namespace_of(values).abs(values).sum()
    below = (total - magnitude) / 2 / max(1, values.size - count)
    return below, (total + magnitude) / 2 / max(1, count)


def _majority(votes: Array) -> None:
    """The sign of each sum; `np.sign` itself is several times slower here."""
    above, below = (votes > 0).view(np.int8), (votes < 0).view(np.int8)
    namespace_of(votes).subtract(above, below, out=votes)


class _Bits:
    """Scales of all parameters, then a bit for each element, then perhaps a mask."""

    def __init__(self, levels: Levels, *, two_sided: bool, mask: bool) -> None:
        self._levels, self._two_sided, self._mask = levels, two_sided, mask

    def encode(self, values: Array, layout: Layout, moment: Moment) -> Array:
        """See `codecs.Codec`."""
        levels = [self._levels(values[part]) for part in layout.segments]
        sent = namespace_of(values).array(levels, values.dtype)[
            :, 0 if self._two_sided else 1 :
        ]
        planes = [pack_bits(values >= 0)]
        if self._mask:
            planes.append(pack_bits(values != 0))
        return as_bytes(namespace_of(values).ascontiguousarray(sent), *planes)

    def add(self, code: Array, out: Array, layout: Layout, weight: float) -> None:
        """See `codecs.Codec`."""
        parts, width = layout.segments, 2 if self._two_sided else 1
        head = len(parts) * width * out.itemsize
        levels = as_numbers(code[:head], out.dtype).reshape(-1, width)
        bits = code[head : head + bit_bytes(layout.size)]
        mask = code[head + bits.size :] if self._mask else None
        for part, level in zip(parts, levels * weight, strict=True):
            low, high = (
                (level[0], level[1]) if self._two_sided else (-level[0], level[0])
            )
            _add_levels(out, part, bits, mask, low, high)

    def code_bytes(self, layout: Layout, itemsize: int) -> int:
        """See `codecs.Codec`."""
        scales = len(layout.segments) * (2 if self._two_sided else 1)
        return scales * itemsize + (2 if self._mask else 1) * bit_bytes(layout.size)


def _add_levels(
    out: Array, part: slice, bits: Array, mask: Array | None, low: Any, high: Any
) -> None:
    """Add to `out[part]` what its bits stand for, a piece at a time."""
    xp = namespace_of(out)
    # A GPU loses more by many small launches than it wins by staying in a cache.
    size = _PIECE if xp is np else part.stop - part.start
    table = xp.where(bits_of_byte(xp) == 1, high, low).astype(out.dtype)
    for start in range(part.start, part.stop, size):
        stop = min(start + size, part.stop)
        covering = slice(start // 8, -(-stop // 8))
        within = slice(start % 8, start % 8 + stop - start)
        decoded = table.take(bits[covering], axis=0).reshape(-1)[within]
        if mask is not None:
            decoded *= unpack_bits(mask[covering], within.stop)[within]
        out[start:stop] += decoded


class _SignRows:
    """Scales of a row's blocks, then a bit for each element."""

    def __init__(self, block: int) -> None:
        self._block = block

    def columns(self, size: int, ranks: int) -> int:
        """See `codecs.RowCodec`."""
        columns = dealt(size, ranks, 32)
        return columns if columns <= self._block else dealt(size, ranks, self._block)

    def encode(self, rows: Array, valid: int, moment: Moment) -> Array:
        """See `codecs.RowCodec`."""
        blocks = rows.reshape(len(rows), -1, min(self._block, rows.shape[1]))
        width = blocks.shape[2]
        xp = namespace_of(rows)
        starts = xp.arange(0, rows.size, width).reshape(len(rows), -1)
        counts = xp.clip(valid - starts, 1, width).astype(rows.dtype)
        scales = xp.abs(blocks).sum(axis=2) / counts
        # Rows are whole bytes, so they may be packed as one: CuPy packs no others.
        bits = xp.packbits(rows >= 0).reshape(len(rows), -1)
        code: Array = xp.hstack([scales.view(np.uint8), bits])
        return code

    def decode(self, code: Array, columns: int, dtype: np.dtype[np.floating]) -> Array:
        """See `codecs.RowCodec`."""
        width = min(self._block, columns)
        head = columns // width * dtype.itemsize
        xp = namespace_of(code)
        scales = xp.ascontiguousarray(code[:, :head]).view(dtype)
        table = (2 * bits_of_byte(xp).astype(np.int8) - 1).astype(dtype)
        signs: Array = table.take(code[:, head:], axis=0).reshape(len(code), -1, width)
        signs *= scales[:, :, None]
        return signs.reshape(len(code), columns)

    def row_bytes(self, columns: int, itemsize: int) -> int:
        """See `codecs.RowCodec`."""
        blocks = columns // min(self._block, columns)
        return blocks * itemsize + columns // 8
