"""What `compression.protocol` promises, as functions of a compressor.

Each fails, with an AssertionError, for a compressor that breaks its promise.
"""

import pickle
import re
from itertools import pairwise, zip_longest

import numpy as np

from acidmpi.arrays import bfloat16
from acidmpi.compression.packing import widen
from acidmpi.compression.protocol import Spec

from .ranks_in_memory import Ranks

SHAPES = ((5,), (3, 4), (3, 4), (1,), (33, 2, 2), (0,), (70,))
SMALL = {
    "topk": {"density": 0.1},
    "randomk": {"density": 0.1},
    "randomblock": {"density": 0.1},
    "efsign": {"block": 32},
    "qsgd": {"block": 64},
}
"""Options that suit these few elements, by compressor."""

TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "uint16": 1.6e-2}


def specs_of(shapes, dtype):
    return [Spec(tuple(shape), np.dtype(dtype)) for shape in shapes]


def as_type(values, dtype):
    if np.dtype(dtype) == np.uint16:
        return bfloat16.encode(values)
    return values.astype(dtype)


class Draws:
    """Gradients of all ranks, step after step."""

    def __init__(self, specs, size, seed=0, zeros=0.0, scale=1.0):
        self._specs, self._size = specs, size
        self._zeros, self._scale = zeros, scale
        self._generator = np.random.default_rng((seed, 20261121))

    def __call__(self):
        return [[self._one(spec) for spec in self._specs] for _ in range(self._size)]

    def _one(self, spec):
        count = int(np.prod(spec.shape))
        values = self._generator.standard_normal(count) * self._scale
        values[self._generator.random(count) < self._zeros] = 0
        return as_type(values, spec.dtype)


def total(gradients):
    """The sum over ranks in float64, by parameter."""
    return [
        sum(widen(g).astype("f8") for g in each)
        for each in zip(*gradients, strict=True)
    ]


def owed(ranks):
    """The sum over ranks of everything that is owed, by parameter."""
    sums = [np.zeros(int(np.prod(spec.shape))) for spec in ranks.specs]
    for state in ranks.states():
        for name, array in state.items():
            if found := re.search(r"\b(?:residual|served)\D*(\d+)$", name):
                sums[int(found[1])] += array.reshape(-1)
    return sums


def all_equal(gradients):
    first = [array.tobytes() for array in gradients[0]]
    return all([array.tobytes() for array in mine] == first for mine in gradients)


def close(left, right, dtype, reference):
    scale = max((np.abs(array).max(initial=0) for array in reference), default=0)
    bound = TOLERANCE[str(np.dtype(dtype))] * (scale + 1e-30)
    return all(
        np.abs(a - b).max(initial=0) <= bound for a, b in zip(left, right, strict=True)
    )


def ranks_end_alike(compressor, dtype="float32", size=3):
    specs = specs_of(SHAPES, dtype)
    ranks, draw = Ranks(compressor, specs, size), Draws(specs, size)
    for _ in range(4):
        gradients = draw()
        ranks.reduce(gradients)
        assert all_equal(gradients)
        assert all(np.isfinite(widen(array)).all() for array in gradients[0])


def nothing_is_lost(compressor, dtype="float32", size=3):
    """Result and what is owed add up to gradient and what was owed; buckets change."""
    specs = specs_of(SHAPES, dtype)
    ranks, draw = Ranks(compressor, specs, size), Draws(specs, size)
    everything = tuple(reversed(range(len(specs))))
    for step in range(6):
        gradients, before = draw(), owed(ranks)
        wanted = [g + o for g, o in zip(total(gradients), before, strict=True)]
        cut = (0, 2, 5)[step // 2]
        for part in (everything[:cut], everything[cut:]):
            if part:
                buckets = [[mine[index] for index in part] for mine in gradients]
                ranks.reduce(buckets, part, step)
        assert all_equal(gradients)
        got = [r + o for r, o in zip(total(gradients), owed(ranks), strict=True)]
        assert close(got, wanted, dtype, wanted), step


def zero_stays_zero(compressor, dtype="float32", size=3):
    specs = specs_of(SHAPES, dtype)
    ranks = Ranks(compressor, specs, size)
    for _ in range(3):
        gradients = Draws(specs, size, zeros=1.0)()
        ranks.reduce(gradients)
        assert all(not widen(array).any() for mine in gradients for array in mine)


def payload_is_what_travels(compressor, dtype="float32", size=3):
    """To the byte for a parameter alone; no more than the sum for a bucket."""
    specs = specs_of(SHAPES, dtype)
    ranks, draw = Ranks(compressor, specs, size), Draws(specs, size)
    for step in range(4):
        first, gradients, told = ranks.reductions[0], draw(), 0
        phase = first.phase(step)
        assert 0 <= phase < first.phases
        for index in range(len(specs)):
            told += first.payload_bytes(index, phase)
            sent = traffic_of(
                ranks, [[mine[index]] for mine in gradients], (index,), step
            )
            assert sent == first.payload_bytes(index, phase), specs[index]
        together = Ranks(compressor, specs, size)
        together.load(ranks.states())
        sent = traffic_of(together, draw(), range(len(specs)), step)
        assert sent <= told
        assert told - sent <= len(specs) * 36 * (size + 1)


def traffic_of(ranks, gradients, indices, step):
    traffic = ranks.traffic
    before, messages = list(traffic.sent_bytes), traffic.messages
    ranks.reduce(gradients, indices, step)
    assert traffic.messages - messages <= ranks.reductions[0].stages
    sent = {now - then for now, then in zip(traffic.sent_bytes, before, strict=True)}
    assert len(sent) == 1
    return sent.pop()


def goes_on_where_it_was(compressor, dtype="float32", size=3):
    specs = specs_of(SHAPES, dtype)
    ranks, draw = Ranks(compressor, specs, size), Draws(specs, size)
    for _ in range(3):
        ranks.reduce(draw())
    states = pickle.loads(pickle.dumps(ranks.states()))
    again = Ranks(compressor, specs, size)
    again.load(states)
    for step in range(3, 6):
        gradients = draw()
        copies = [[array.copy() for array in mine] for mine in gradients]
        ranks.reduce(gradients, step=step)
        again.reduce(copies, step=step)
        assert [all_equal([a, b]) for a, b in zip(gradients, copies, strict=True)]
        assert all(all_equal(pair) for pair in zip(gradients, copies, strict=True))


def other_size_owes_the_same(compressor, dtype="float32", size=3):
    specs = specs_of(SHAPES, dtype)
    ranks, draw = Ranks(compressor, specs, size), Draws(specs, size)
    for _ in range(4):
        ranks.reduce(draw())
    for other in (1, 2, 5):
        later = Ranks(compressor, specs, other)
        later.load(ranks.states())
        assert close(owed(later), owed(ranks), dtype, owed(ranks))
        gradients = Draws(specs, other)()
        later.reduce(gradients, step=4)
        assert all_equal(gradients)


def debts_stay_bounded(compressor, dtype="float64", size=2):
    """On a constant gradient; a debt that grows would double from one look to the next."""
    specs = specs_of([(12, 10), (40,)], dtype)
    ranks, constant = Ranks(compressor, specs, size), Draws(specs, size)()
    norms = []
    for step in range(160):
        ranks.reduce([[array.copy() for array in mine] for mine in constant])
        if step in (79, 159):
            norms.append(np.linalg.norm(np.concatenate(owed(ranks))))
    assert norms[1] <= 1.5 * norms[0] + 1e-6


def layout_in_memory_is_nothing(compressor, dtype="float32", size=3):
    """Gradients in one flat buffer and gradients anywhere give the same bits."""
    specs = specs_of(SHAPES, dtype)
    apart, draw = Ranks(compressor, specs, size), Draws(specs, size)
    flat = Ranks(compressor, specs, size)
    bounds = np.cumsum([0, *(int(np.prod(shape)) for shape in SHAPES)])
    for _ in range(3):
        gradients = draw()
        buffers = [np.concatenate(mine) for mine in gradients]
        views = [[b[i:j] for i, j in pairwise(bounds)] for b in buffers]
        apart.reduce(gradients)
        flat.reduce(views)
        assert all(all_equal(pair) for pair in zip(gradients, views, strict=True))


def buckets_may_overlap(compressor, dtype="float32", size=3):
    """Whether buckets take turns or follow each other, in new buckets, too."""
    specs = specs_of(SHAPES, dtype)
    apart, draw = Ranks(compressor, specs, size), Draws(specs, size)
    mixed = Ranks(compressor, specs, size)
    for step, cut in enumerate((3, 3, 4, 2)):
        gradients = draw()
        copies = [[array.copy() for array in mine] for mine in gradients]
        turns = []
        for part in (tuple(range(cut)), tuple(range(cut, len(specs)))):
            apart.reduce([[mine[k] for k in part] for mine in gradients], part, step)
            bucket = [[mine[k] for k in part] for mine in copies]
            turns.append(mixed.rounds(bucket, part, step))
        for _ in zip_longest(*turns):
            pass
        assert all(all_equal(pair) for pair in zip(gradients, copies, strict=True))


EVERYONE = (
    buckets_may_overlap,
    ranks_end_alike,
    zero_stays_zero,
    payload_is_what_travels,
    goes_on_where_it_was,
    other_size_owes_the_same,
    layout_in_memory_is_nothing,
)
