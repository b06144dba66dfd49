"""Three ways from one rank's numbers to the mean of all: sum, gather, two phases.

Each way works with any codec of its kind, with or without error feedback, and ends with
the same bits on all ranks: sums come from MPI, and what was gathered is added up by
everyone in order of rank. Volume per rank of n bytes at `size` ranks, as Thakur,
Rabenseifner and Gropp (2005) count it:

- sum of n: 2(size-1)/size n, one message; the encoding must be linear;
- gather of n: (size-1) n, one message; any encoding, grows with the ranks;
- two phases of n: 2(size-1)/size n, two messages, one after the other; the encoding must
  be able to describe a sum again.

Gradients must be finite: a NaN or an infinity would enter the residual and stay there.
Whoever drives a reduction lets ranks vote before it begins.
"""

from collections.abc import Callable, Sequence

import numpy as np

from acidmpi.arrays.flat import wide_dtype
from acidmpi.arrays.namespace import namespace_of
from acidmpi.compression.codecs import Codec, Layout, Moment, RowCodec, layout_of
from acidmpi.compression.feedback import Memory, size_of
from acidmpi.compression.packing import narrow, pack, padded, unpack, widen
from acidmpi.compression.protocol import (
    AllToAll,
    Array,
    Gather,
    Mean,
    Place,
    Spec,
    State,
    Work,
)


class Base:
    """What all reductions of this module share: one phase, and a memory."""

    def __init__(
        self,
        name: str,
        specs: Sequence[Spec],
        place: Place,
        *,
        feedback: bool = False,
        served: bool = False,
    ) -> None:
        self.place = place
        self.sizes = [size_of(spec) for spec in specs]
        self.itemsizes = [wide_dtype(spec.dtype).itemsize for spec in specs]
        self.memory = Memory(name, specs, place, feedback, served)

    @property
    def phases(self) -> int:
        """All steps are alike."""
        return 1

    def phase(self, step: int) -> int:
        """All steps are alike."""
        return 0

    def state(self) -> State:
        """See `protocol.Reduction`."""
        return self.memory.state()

    def load(self, states: Sequence[State]) -> None:
        """See `protocol.Reduction`."""
        self.memory.load(states)

    def layout(self, indices: Sequence[int]) -> Layout:
        """Where these parameters lie in a bucket of them."""
        return layout_of([self.sizes[index] for index in indices])

    def input(self, gradient: Array, indices: Sequence[int]) -> Array:
        """Gradient plus what is owed, in float32 or float64.

        With feedback the result is the memory itself: what is left in it is owed next.
        Without it the result may be `gradient` itself.
        """
        if self.memory.own is None:
            return widen(gradient)
        self.memory.follow(indices, gradient)
        total = self.memory.own.block(indices)
        total += widen(gradient)
        return total


def scratch(gradient: Array) -> Array:
    """Room for a result of `gradient`'s size in float32 or float64: itself, if it can."""
    wide = wide_dtype(gradient.dtype)
    if gradient.dtype == wide:
        return gradient
    room: Array = namespace_of(gradient).empty(gradient.size, wide)
    return room


def deliver(result: Array, flat: Array, gradients: Sequence[Array]) -> None:
    """Bring a bucket's result to where its gradients are."""
    if result is not flat:
        narrow(result, flat)
    unpack(flat, gradients)


class Gathered(Base):
    """Everyone describes its own input, and everyone decodes all descriptions.

    Args:
        settle: what is done to the sum instead of dividing it by the number of ranks.
    """

    stages = 1

    def __init__(
        self,
        name: str,
        codec: Codec,
        specs: Sequence[Spec],
        place: Place,
        *,
        feedback: bool,
        settle: Callable[[Array], None] | None = None,
    ) -> None:
        super().__init__(name, specs, place, feedback=feedback)
        self._codec, self._settle = codec, settle

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `protocol.Reduction`."""
        return self._codec.code_bytes(self.layout([index]), self.itemsizes[index])

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """See `protocol.Reduction`."""
        layout = self.layout(indices)
        if not layout.size:
            return
        flat = pack(gradients)
        values = self.input(flat, indices)
        moment = Moment(self.place, step, tuple(indices))
        code = self._codec.encode(values, layout, moment)
        if self.memory.own is not None:
            self._codec.add(code, values, layout, -1.0)
        codes = yield Gather(code)
        deliver(self._decoded(codes, scratch(flat), layout), flat, gradients)

    def _decoded(self, codes: Array, out: Array, layout: Layout) -> Array:
        out.fill(0)
        weight = 1.0 if self._settle else 1.0 / self.place.size
        for code in codes:
            self._codec.add(code, out, layout, weight)
        if self._settle:
            self._settle(out)
        return out


class TwoPhase(Base):
    """Each rank sums one chunk of the bucket and describes that sum to all others.

    With feedback a rank owes what its own chunks left out (to itself) and what its
    descriptions of sums left out (to all): Tang et al., "DoubleSqueeze" (2019).
    """

    stages = 2

    def __init__(
        self,
        name: str,
        codec: RowCodec,
        specs: Sequence[Spec],
        place: Place,
        *,
        feedback: bool = False,
    ) -> None:
        super().__init__(name, specs, place, feedback=feedback, served=feedback)
        self._codec = codec

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `protocol.Reduction`."""
        ranks, size = self.place.size, self.sizes[index]
        if not size:
            return 0
        columns = self._codec.columns(size, ranks)
        return (ranks + 1) * self._codec.row_bytes(columns, self.itemsizes[index])

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """See `protocol.Reduction`."""
        size = self.layout(indices).size
        if not size:
            return
        flat, dtype = pack(gradients), wide_dtype(gradients[0].dtype)
        moment = Moment(self.place, step, tuple(indices))
        columns = self._codec.columns(size, self.place.size)
        received = yield AllToAll(self._deal(flat, columns, moment))
        chunk = self._mean(received, columns, dtype)
        answers = yield Gather(self._describe(chunk, moment._replace(stage=1)))
        narrow(self._decode(answers, columns, dtype)[:size], flat)
        unpack(flat, gradients)

    def _deal(self, flat: Array, columns: int, moment: Moment) -> Array:
        """Codes of one row for each rank."""
        values = self.input(flat, moment.indices)
        rows = padded(values, self.place.size * columns).reshape(-1, columns)
        code = self._codec.encode(rows, values.size, moment)
        if self.memory.own is not None:
            values -= self._decode(code, columns, values.dtype)[: values.size]
        return code

    def _decode(self, code: Array, columns: int, dtype: np.dtype[np.floating]) -> Array:
        return self._codec.decode(code, columns, dtype).reshape(-1)

    def _mean(
        self, received: Array, columns: int, dtype: np.dtype[np.floating]
    ) -> Array:
        chunk: Array = self._codec.decode(received, columns, dtype).sum(axis=0)
        chunk /= self.place.size
        return chunk

    def _describe(self, chunk: Array, moment: Moment) -> Array:
        """The code of this rank's share of the mean; padding counts for nothing."""
        start = self.place.rank * chunk.size
        valid = min(max(self.layout(moment.indices).size - start, 0), chunk.size)
        chunk[valid:] = 0
        if self.memory.served is None:
            return self._codec.encode(chunk[None], valid, moment).reshape(-1)
        owed = self.memory.served.block(moment.indices)[start : start + valid]
        chunk[:valid] += owed / self.place.size
        answer = self._codec.encode(chunk[None], valid, moment)
        chunk -= self._decode(answer, chunk.size, chunk.dtype)
        owed[:] = chunk[:valid] * self.place.size
        return answer.reshape(-1)


class Dense(Base):
    """The plain mean of float64 or float32, taken where it lies."""

    stages = 1

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `protocol.Reduction`."""
        return self.sizes[index] * self.itemsizes[index]

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """See `protocol.Reduction`."""
        if not self.layout(indices).size:
            return
        flat = pack(gradients)
        yield Mean(flat)
        unpack(flat, gradients)
