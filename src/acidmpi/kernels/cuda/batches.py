"""Which updates share a launch on a GPU, and what that launch is given.

What follows from where arrays lie is found once for a batch; a launch adds the numbers.
"""

import struct
from collections.abc import Sequence
from functools import reduce
from itertools import chain
from operator import or_
from typing import NamedTuple

import numpy as np

from acidmpi.kernels.compiled import Call, one_length
from acidmpi.kernels.cuda.protocol import Device
from acidmpi.kernels.cuda.source import (
    PACK_BYTES,
    THREADS,
    most_parts,
    part_format,
    takes_word,
)
from acidmpi.kernels.variants import Variant, kinds

BLOCKS_PER_MULTIPROCESSOR = 32
"""Most blocks of a part: enough to fill it several times over, few enough that what
every thread does before its loop costs nothing."""


class Kind(NamedTuple):
    """What the parts of one launch have in common."""

    variant: Variant
    aligned: bool
    """Whether all arrays begin at multiples of 16 bytes."""


class Part(NamedTuple):
    """One update: where its arrays lie."""

    call: int
    """Which of the calls it is."""

    words: tuple[int, ...]
    """Addresses and length."""

    blocks: int


class Batch:
    """One launch.

    Args:
        kind: of all its parts.
        parts: at most as many as its kernel takes.
    """

    def __init__(self, kind: Kind, parts: Sequence[Part]) -> None:
        self.kind, self.guarded = kind, takes_word(kind.variant.loop)
        self._heads = []
        self.blocks = 0
        for part in parts:
            self.blocks += part.blocks
            self._heads.append((part.call, (*part.words, self.blocks)))
        format_ = part_format(kind.variant)
        bytes_ = struct.calcsize(format_) * most_parts(kind.variant.loop)
        self._table = struct.Struct(format_ * len(parts))
        self._rest = bytes(bytes_ - self._table.size)

    def table(self, calls: Sequence[Call]) -> bytes:
        """The argument, with the scalars of these calls."""
        parts = [(*head, *calls[index].scalars) for index, head in self._heads]
        return self._table.pack(*chain.from_iterable(parts)) + self._rest


def batches(device: Device, calls: Sequence[Call]) -> list[Batch]:
    """The launches that `calls` are, in as few as possible.

    Raises:
        TypeError: an array is not a device's.
        ValueError: arrays of one call differ in length.
    """
    found: dict[Kind, list[Part]] = {}
    for index, call in enumerate(calls):
        arrays = [array for array in call.arrays if array is not None]
        places = [device.address(array) for array in arrays]
        aligned = reduce(or_, places) % PACK_BYTES == 0
        kind = Kind(Variant(call.loop, kinds(call.arrays)), aligned)
        n = one_length(arrays)
        part = Part(index, (*places, n), blocks_for(device, kind, n))
        found.setdefault(kind, []).extend([part] if n else [])
    return [Batch(kind, p) for kind, parts in found.items() for p in _cut(kind, parts)]


def blocks_for(device: Device, kind: Kind, n: int) -> int:
    """Blocks for `n` numbers."""
    width = PACK_BYTES // np.dtype(kind.variant.arrays[0]).itemsize
    turns = (n // width if kind.aligned else n) + 1
    return min(-(-turns // THREADS), BLOCKS_PER_MULTIPROCESSOR * device.multiprocessors)


def _cut(kind: Kind, parts: list[Part]) -> list[list[Part]]:
    most = most_parts(kind.variant.loop)
    return [parts[k : k + most] for k in range(0, len(parts), most)]
