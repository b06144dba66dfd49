"""What a compressor is: how gradients of one rank become messages, and their mean again.

A compressor describes its messages by yielding them, and whoever drives it sends them:

    work = reduction.reduce(indices, gradients, step)
    message = next(work)                    # encode
    while True: message = work.send(reply)  # decode, or encode the next message

so that compression knows arrays only, and messages of several buckets overlap. When the
generator ends, each gradient holds the mean over ranks of what all of them decode.

Guarantees of every compressor (what averages with neighbours only has none of these, and
is no compressor that a user can choose: see `parallel.mixing`):
- all ranks yield messages of the same kinds, shapes and types in the same order, whatever
  their gradients hold;
- all ranks end with the same gradients, to the last bit;
- with error feedback, applied + residual = input on each rank, to rounding, where
  `applied` is what this rank contributed to the mean (times the number of ranks);
- state is kept by parameter, not by bucket: buckets may change from step to step.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Of NumPy, or of a module that works like it (CuPy): replies and results are of the
same kind as the gradients."""


class Spec(NamedTuple):
    """One parameter, as all ranks know it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """float64, float32, float16, or uint16 that stands for bfloat16."""


class Place(NamedTuple):
    """Where a reduction runs."""

    rank: int
    size: int
    seed: int
    """The same on all ranks: what must be drawn alike is drawn from it."""


class Sum(NamedTuple):
    """Sum `array` (float64 or float32, one-dimensional, contiguous) over all ranks.

    The reply is `array` itself, which then holds the sum.
    """

    array: Array


class Mean(NamedTuple):
    """The mean of `array` over all ranks: a `Sum` that is divided where it is made.

    For long arrays each rank divides its own part only, while that is in cache.
    """

    array: Array


class Gather(NamedTuple):
    """Everyone gets everyone's `array` (one-dimensional, contiguous, of any type).

    The reply has shape (size, array.size): row k is rank k's. It is good until the
    generator is resumed next.
    """

    array: Array


class AllToAll(NamedTuple):
    """Row k of `array` (of shape (size, n), contiguous, of any type) goes to rank k.

    The reply has the same shape: row k came from rank k. It is good until the generator
    is resumed next.
    """

    array: Array


class Swap(NamedTuple):
    """Send `array` (one-dimensional, contiguous, of any type) to some ranks only.

    The reply is `received`, of shape (number of sources, array.size) and of the same
    type: row k came from `sources[k]`. Whoever is a source names this rank as a target.
    """

    array: Array
    targets: tuple[int, ...]
    sources: tuple[int, ...]
    received: Array


Message = Sum | Mean | Gather | AllToAll | Swap

Work = Generator[Message, Array, None]
"""The reduction of one bucket: messages out, replies in."""

State = dict[str, Array]
"""What a reduction has to keep, by name; NumPy arrays of any shape, also if gradients are
not, so that a run may go on elsewhere."""


class Reduction(Protocol):
    """A compressor at work on the parameters of one model.

    Not thread-safe; its owner calls it from one thread at a time.
    """

    @property
    def phases(self) -> int:
        """Steps of how many kinds alternate: 2 for ACP-SGD, else 1."""
        ...

    @property
    def stages(self) -> int:
        """Most messages that one `reduce` yields, one after the other."""
        ...

    def phase(self, step: int) -> int:
        """The kind of step number `step`, counted from 0."""
        ...

    def payload_bytes(self, index: int, phase: int) -> int:
        """Bytes that this rank hands to messages for parameter `index` in such a step.

        Of a bucket of several parameters it is the sum, headers and padding aside.
        """
        ...

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """Replace each gradient by the mean over ranks.

        Args:
            indices: parameters of this bucket.
            gradients: one-dimensional contiguous arrays of their sizes and types, in the
                same order; changed in place.
            step: number of the step, the same on all ranks.
        """
        ...

    def state(self) -> State:
        """Copies of all that the next step depends on: factors, residuals, generators."""
        ...

    def load(self, states: Sequence[State]) -> None:
        """Go on from the states that all ranks of a run had, in order of rank.

        With as many ranks as then, each takes its own and goes on as if never stopped.
        With another number, residuals are summed and shared out evenly, so that nothing
        that was owed is lost; what is common to all ranks is taken from rank 0.

        Raises:
            ConfigError: they are of other parameters or of another compressor.
        """
        ...


class Compressor(Protocol):
    """A way to compress, with its options: immutable, picklable, equal if alike.

    `repr` shows the options; ranks compare it.
    """

    @property
    def name(self) -> str:
        """What `--compression` calls it."""
        ...

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """Begin with these parameters; no message is sent."""
        ...
