"""Ranks of one process: reductions in lockstep over a network that only copies."""

from dataclasses import dataclass, field

import numpy as np

from acidmpi.compression.protocol import AllToAll, Gather, Mean, Place, Sum


@dataclass
class Traffic:
    """What each rank has handed to messages so far."""

    sent_bytes: list[int]
    messages: int = 0
    kinds: list[type] = field(default_factory=list)


class Ranks:
    """`size` reductions of one compressor, and the messages between them.

    Checks that all ranks yield messages of the same kinds, shapes and types, that a sum
    is of floats, and that everything that travels is contiguous. A gathered reply is
    spoilt as soon as its generator has been resumed: it was good until then only.
    """

    def __init__(self, compressor, specs, size, seed=0):
        self.compressor, self.specs, self.size = compressor, list(specs), size
        self.places = [Place(rank, size, seed) for rank in range(size)]
        self.reductions = [compressor.start(self.specs, place) for place in self.places]
        self.traffic = Traffic([0] * size)
        self.step = 0

    def reduce(self, gradients, indices=None, step=None):
        """Replace `gradients[rank][k]`, of parameter `indices[k]`, by the mean."""
        for _ in self.rounds(gradients, indices, step):
            pass

    def rounds(self, gradients, indices=None, step=None):
        """The same, a round of messages at a time: buckets may take turns."""
        indices = range(len(self.specs)) if indices is None else indices
        step = self.step if step is None else step
        self.step = step + 1
        self.traffic.kinds = []
        works = [
            reduction.reduce(tuple(indices), mine, step)
            for reduction, mine in zip(self.reductions, gradients, strict=True)
        ]
        replies = [None] * self.size
        while True:
            messages = [advance(*pair) for pair in zip(works, replies, strict=True)]
            spoil(replies)
            if all(message is None for message in messages):
                return
            replies = self._deliver(messages)
            yield

    def _deliver(self, messages):
        check_alike(messages)
        self.traffic.messages += 1
        self.traffic.kinds.append(type(messages[0]))
        for rank, message in enumerate(messages):
            self.traffic.sent_bytes[rank] += message.array.nbytes
        return ANSWER[type(messages[0])]([message.array for message in messages])

    def states(self):
        return [reduction.state() for reduction in self.reductions]

    def load(self, states):
        for reduction in self.reductions:
            reduction.load(states)


def advance(work, reply):
    try:
        return work.send(reply)
    except StopIteration:
        return None


def spoil(replies):
    for reply in replies:
        if reply is not None and reply.ndim == 2:
            reply.view(np.uint8)[:] = 0xFF


def check_alike(messages):
    forms = [(type(m), m.array.shape, m.array.dtype) for m in messages if m is not None]
    assert len(forms) == len(messages), f"some ranks have ended: {messages}"
    assert len(set(forms)) == 1, f"ranks yield different messages: {forms}"
    kind, shape, dtype = forms[0]
    assert all(message.array.flags.c_contiguous for message in messages)
    if kind is AllToAll:
        assert len(shape) == 2
        assert shape[0] == len(messages)
    else:
        assert len(shape) == 1
    assert kind not in (Sum, Mean) or dtype in (np.float32, np.float64)


def add_up(arrays):
    """In order of rank, in place, as an all-reduce in place does."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    for array in arrays:
        array[:] = total
    return arrays


def average(arrays):
    add_up(arrays)
    for array in arrays:
        array /= len(arrays)
    return arrays


def hand_out(arrays):
    together = np.stack(arrays)
    return [together.copy() for _ in arrays]


def exchange(arrays):
    together = np.stack(arrays)
    return [together[:, rank].copy() for rank in range(len(arrays))]


ANSWER = {Sum: add_up, Mean: average, Gather: hand_out, AllToAll: exchange}
