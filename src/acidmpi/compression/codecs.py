"""What a codec is told: where parameters lie in a bucket, and what chance depends on."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import numpy as np

from acidmpi.compression.packing import round_up
from acidmpi.compression.protocol import Array, Place
from acidmpi.errors import ConfigError

LARGEST_BUCKET = 2**31 - 1
"""Elements; positions travel as int32."""


class Moment(NamedTuple):
    """One bucket at one step: all that chance may depend on.

    Generators are keyed, not carried on: what is drawn does not depend on the order in
    which buckets come, and nothing about it has to be saved.
    """

    place: Place
    step: int
    indices: tuple[int, ...]
    stage: int = 0
    """Messages of this bucket that went before: each draws anew."""

    def shared(self, index: int) -> np.random.Generator:
        """Draws alike on all ranks, for one parameter."""
        return self._generator(0, index)

    def own(self) -> np.random.Generator:
        """Draws differently on each rank, for the bucket."""
        return self._generator(1 + self.place.rank, self.indices[0])

    def _generator(self, stream: int, index: int) -> np.random.Generator:
        seed = self.place.seed % 2**64
        return np.random.default_rng((seed, stream, self.step, index, self.stage))


class Layout(NamedTuple):
    """Where the parameters of a bucket lie."""

    bounds: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of the bucket."""
        return self.bounds[-1]

    @property
    def segments(self) -> list[slice]:
        """One for each parameter that has elements."""
        return [slice(a, b) for a, b in pairwise(self.bounds) if b > a]


def layout_of(sizes: Sequence[int]) -> Layout:
    """Parameters of these sizes, one behind the other.

    Raises:
        ConfigError: they are too many elements for one bucket.
    """
    bounds = tuple(accumulate(sizes, initial=0))
    if bounds[-1] > LARGEST_BUCKET:
        raise ConfigError(
            f"a bucket holds at most {LARGEST_BUCKET} elements, got {bounds[-1]}; "
            "lower bucket_bytes"
        )
    return Layout(bounds)


class Codec(Protocol):
    """An encoding of a whole bucket, which may treat each parameter by itself."""

    def encode(self, values: Array, layout: Layout, moment: Moment) -> Array:
        """Describe float64 or float32 `values`, which are not changed, as uint8."""
        ...

    def add(self, code: Array, out: Array, layout: Layout, weight: float) -> None:
        """Add `weight` times what `code` says to `out`."""
        ...

    def code_bytes(self, layout: Layout, itemsize: int) -> int:
        """Size of a code; `itemsize` is that of the values."""
        ...


class RowCodec(Protocol):
    """An encoding of equal rows, each decodable by itself."""

    def columns(self, size: int, ranks: int) -> int:
        """Elements of a row when `size` elements are dealt to `ranks` rows."""
        ...

    def encode(self, rows: Array, valid: int, moment: Moment) -> Array:
        """Describe float rows of shape (ranks, columns); a code has as many rows.

        Only the first `valid` elements count; zeros follow them.
        """
        ...

    def decode(self, code: Array, columns: int, dtype: np.dtype[np.floating]) -> Array:
        """The rows that `code` describes, as `dtype`."""
        ...

    def row_bytes(self, columns: int, itemsize: int) -> int:
        """Size of one row's code; `itemsize` is that of the values."""
        ...


def dealt(size: int, ranks: int, unit: int) -> int:
    """Columns of a grid with one row for each rank, in multiples of `unit`."""
    return round_up(-(-size // ranks), unit)
