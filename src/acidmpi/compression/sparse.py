"""A few elements in full: the largest ones, or drawn ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.codecs import Layout, Moment, layout_of
from acidmpi.compression.options import check_choice, check_density, check_flag
from acidmpi.compression.packing import as_bytes, as_numbers, pack
from acidmpi.compression.protocol import (
    Array,
    Place,
    Reduction,
    Spec,
    Sum,
    Work,
)
from acidmpi.compression.reductions import Base, Gathered, deliver, scratch

_POSITION_BYTES = 4
_SAMPLE = 4096
"""Elements that are looked at to guess a threshold."""


@dataclass(frozen=True)
class TopK:
    """The elements of largest magnitude, and where they were (Aji and Heafield, 2017).

    max(1, ceil(density n)) of n elements travel, as values in float32 (float64) and
    int32 positions in one message. Everyone's elements may be different ones, so they
    are gathered: traffic grows with the ranks, and above a density of about 1/size a
    dense mean is smaller.
    """

    density: float = 0.01
    scope: Literal["tensor", "bucket"] = "tensor"
    """Whether each parameter sends its share, or each bucket as a whole."""

    error_feedback: bool = True

    def __post_init__(self) -> None:
        check_density(self.density)
        check_choice("scope", self.scope, ("tensor", "bucket"))
        check_flag("error_feedback", self.error_feedback)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "topk"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        codec = _Largest(self.density, self.scope == "bucket")
        feedback = self.error_feedback
        return Gathered(self.name, codec, specs, place, feedback=feedback)


class _Largest:
    """Values first, positions in the bucket behind them."""

    def __init__(self, density: float, whole: bool) -> None:
        self._density, self._whole = density, whole

    def encode(self, values: Array, layout: Layout, moment: Moment) -> Array:
        """See `codecs.Codec`."""
        chosen = [
            part.start + largest(values[part], share(part, self._density))
            for part in self._scoped(layout).segments
        ]
        positions = namespace_of(values).concatenate(chosen).astype(np.int32)
        return as_bytes(values[positions], positions)

    def add(self, code: Array, out: Array, layout: Layout, weight: float) -> None:
        """See `codecs.Codec`."""
        count = code.size // (out.itemsize + _POSITION_BYTES)
        values = as_numbers(code[: count * out.itemsize], out.dtype)
        out[code[count * out.itemsize :].view(np.int32)] += values * weight

    def code_bytes(self, layout: Layout, itemsize: int) -> int:
        """See `codecs.Codec`."""
        parts = self._scoped(layout).segments
        count = sum(share(part, self._density) for part in parts)
        return count * (itemsize + _POSITION_BYTES)

    def _scoped(self, layout: Layout) -> Layout:
        return layout_of([layout.size]) if self._whole else layout


def share(part: slice, density: float) -> int:
    """How many elements of `part` travel: at least one."""
    size = int(part.stop - part.start)
    return min(size, max(1, math.ceil(density * size)))


def largest(values: Array, count: int) -> Any:
    """Positions of the `count` elements of largest magnitude, in no order."""
    xp = namespace_of(values)
    if count == values.size:
        return xp.arange(count)
    magnitude = xp.abs(values)
    candidates = _candidates(magnitude, count)
    chosen = xp.argpartition(magnitude[candidates], candidates.size - count)[-count:]
    return candidates[chosen]


def _candidates(magnitude: Array, count: int) -> Any:
    """Positions among which the largest are: those above a guess, or all.

    The guess is the magnitude that twice as many of a sample exceed as are wanted. It
    saves most of the sorting, and it cannot change the result: where it is too high,
    everything is a candidate.
    """
    xp = namespace_of(magnitude)
    stride = _stride(magnitude.size)
    if stride > 1 and 4 * count < magnitude.size:
        sample = magnitude[::stride]
        rank = min(sample.size - 1, 2 * count // stride + 8)
        guess = xp.partition(sample, sample.size - 1 - rank)[sample.size - 1 - rank]
        if guess == 0:
            return _without_most_zeros(magnitude, count)
        above = xp.flatnonzero(magnitude >= guess)
        if above.size >= count:
            return above
    return xp.arange(magnitude.size)


def _stride(size: int) -> int:
    """Steps of a sample, in step with no kernel of 3, 5 or 7 numbers a side."""
    stride = (size // _SAMPLE) | 1
    while math.gcd(stride, 3 * 5 * 7) > 1:
        stride += 2
    return stride


def _without_most_zeros(magnitude: Array, count: int) -> Any:
    """All that are not zero, and as many zeros as are missing.

    Sorting would take a hundred times longer: many equal numbers are its worst case.
    """
    xp = namespace_of(magnitude)
    above = xp.flatnonzero(magnitude)
    missing = count - above.size
    if missing <= 0:
        return above
    return xp.concatenate([above, xp.flatnonzero(magnitude == 0)[:missing]])


@dataclass(frozen=True)
class RandomK:
    """Elements drawn alike on all ranks, so that only their values travel.

    max(1, ceil(density n)) of the n elements of each parameter, drawn anew at each step
    from (seed, step, parameter): coordinates without repetition, or with `block` one
    run of neighbours that may wrap around. Sums over ranks are made by MPI. Without
    error feedback they are multiplied by n / count, so that their expectation is the
    mean gradient.
    """

    density: float = 0.01
    block: bool = False
    error_feedback: bool = True

    def __post_init__(self) -> None:
        check_density(self.density)
        check_flag("block", self.block)
        check_flag("error_feedback", self.error_feedback)

    @property
    def name(self) -> str:
        """See `protocol.Compressor`."""
        return "randomblock" if self.block else "randomk"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `protocol.Compressor`."""
        return _Drawn(self, specs, place)


class _Drawn(Base):
    stages = 1

    def __init__(self, options: RandomK, specs: Sequence[Spec], place: Place) -> None:
        super().__init__(options.name, specs, place, feedback=options.error_feedback)
        self._options = options

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `protocol.Reduction`."""
        size, itemsize = self.sizes[index], self.itemsizes[index]
        return share(slice(0, size), self._options.density) * itemsize

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """See `protocol.Reduction`."""
        layout = self.layout(indices)
        if not layout.size:
            return
        flat = pack(gradients)
        values = self.input(flat, indices)
        drawn = self._draw(layout, Moment(self.place, step, tuple(indices)))
        where = namespace_of(flat).asarray(np.concatenate(drawn))
        chosen = values[where]
        if self.memory.own is not None:
            values[where] = 0
        yield Sum(chosen)
        result = scratch(flat)
        result.fill(0)
        chosen = chosen * (1.0 / self.place.size)
        if self.memory.own is None:
            self._magnify(chosen, layout, drawn)
        result[where] = chosen
        deliver(result, flat, gradients)

    def _draw(self, layout: Layout, moment: Moment) -> list[Array]:
        """Positions by parameter; NumPy draws them, wherever gradients are: all alike."""
        return [
            layout.bounds[k] + self._positions(self.sizes[index], moment.shared(index))
            for k, index in enumerate(moment.indices)
            if self.sizes[index]
        ]

    def _positions(self, size: int, generator: np.random.Generator) -> Array:
        count = share(slice(0, size), self._options.density)
        if self._options.block:
            return (generator.integers(size) + np.arange(count)) % size
        return generator.choice(size, count, replace=False, shuffle=False)

    @staticmethod
    def _magnify(chosen: Array, layout: Layout, drawn: Sequence[Array]) -> None:
        start = 0
        for part, where in zip(layout.segments, drawn, strict=True):
            stop = start + where.size
            chosen[start:stop] *= (part.stop - part.start) / where.size
            start = stop
