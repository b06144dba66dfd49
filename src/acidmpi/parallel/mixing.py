"""The weighted mean of a rank with its neighbours, in the form of a compressor.

Arrays in, arrays out: who sends them is the averager's business.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.packing import narrow, widen
from acidmpi.compression.protocol import (
    Array,
    Place,
    Reduction,
    Spec,
    State,
    Swap,
    Work,
)
from acidmpi.topology.rounds import Round, Rounds


class Meeting:
    """One step's exchanges of this rank, for the record.

    Written by whoever drives the messages, and read by the caller between two steps.
    """

    def __init__(self) -> None:
        self.sources: tuple[int, ...] = ()
        """Ranks whose arrays came."""
        self.began = self.ended = 0.0

    @property
    def seconds(self) -> float:
        """From the first message sent to the last that came."""
        return self.ended - self.began


@dataclass(frozen=True, repr=False)
class NeighbourMean:
    """Each rank's weighted mean with its neighbours, as a `compression.Compressor`.

    Args:
        rounds: of this rank.
        meeting: is told of each step.
    """

    rounds: Rounds
    meeting: Meeting

    @property
    def name(self) -> str:
        """See `compression.protocol.Compressor`."""
        return "neighbours"

    def __repr__(self) -> str:
        return f"neighbours on {self.rounds.described}"

    def start(self, specs: Sequence[Spec], place: Place) -> Reduction:
        """See `compression.protocol.Compressor`."""
        return _Mixing(specs, self.rounds.steps, self.meeting)


class _Mixing:
    """`NeighbourMean` at work."""

    phases = stages = 1

    def __init__(
        self, specs: Sequence[Spec], steps: tuple[Round, ...], meeting: Meeting
    ) -> None:
        self._most = max((len(step.sources) for step in steps), default=0)
        self._received: dict[int, Array] = {}
        self._bytes = [spec.dtype.itemsize * math.prod(spec.shape) for spec in specs]
        self._steps = steps
        self._meeting = meeting
        self._step = -1

    def phase(self, step: int) -> int:
        """All steps are alike."""
        return 0

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `compression.protocol.Reduction`."""
        return self._bytes[index]

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """Replace each array by the weighted mean with those of this step's sources."""
        if not self._steps:
            return
        at = self._steps[step % len(self._steps)]
        self._begin(step, at)
        for index, x in zip(indices, gradients, strict=True):
            rows = self._rows(index, x)[: len(at.sources)]
            reply = yield Swap(x, at.targets, at.sources, rows)
            mix(x, reply, at.weights)
        self._meeting.ended = time.perf_counter()

    def _rows(self, index: int, x: Array) -> Array:
        """Where what comes for `x` is put: beside it, and always the same memory."""
        if index not in self._received:
            empty = namespace_of(x).empty
            self._received[index] = empty((self._most, *x.shape), x.dtype)
        return self._received[index]

    def state(self) -> State:
        """Nothing but the number of the step, which the averager has."""
        return {}

    def load(self, states: Sequence[State]) -> None:
        """Nothing."""

    def _begin(self, step: int, at: Round) -> None:
        if step != self._step:
            self._step = step
            self._meeting.sources = at.sources
            self._meeting.began = time.perf_counter()


def mix(x: Array, received: Array, weights: Sequence[float]) -> None:
    """Replace x by x + Σ w_k (received_k − x); `received` is overwritten.

    Two ranks that swap with weight ½ end with the same bits. Differences turn their sign
    with the direction and nothing else, so that the sum over ranks stays where it is, to
    the rounding of x. Sixteen bits are calculated as float32 and rounded once.
    """
    if x.itemsize == 2:
        wide = widen(x)
        mix(wide, widen(received), weights)
        narrow(wide, x)
    elif tuple(weights) == (0.5,):
        x += received[0]
        x *= 0.5
    else:
        for row, weight in zip(received, weights, strict=True):
            row -= x
            row *= weight
        for row in received:
            x += row
