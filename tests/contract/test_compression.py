"""What `compression.protocol` promises, of every compressor that has a name."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ranks_in_memory import Ranks

from acidmpi.arrays import bfloat16
from acidmpi.compression.packing import widen
from acidmpi.compression.protocol import Spec
from acidmpi.compression.registry import make, names
from acidmpi.errors import ConfigError

OPTIONS = {
    "topk": {"density": 0.1},
    "randomk": {"density": 0.1},
    "randomblock": {"density": 0.1},
    "efsign": {"block": 32},
    "qsgd": {"block": 64},
    "powersgd": {"matrix_rank": 2, "start_step": 1, "min_compression_rate": 1},
    "acpsgd": {"matrix_rank": 2, "start_step": 1},
}
VARIANTS = {
    "topk of a bucket": ("topk", {"density": 0.05, "scope": "bucket"}),
    "topk without feedback": ("topk", {"error_feedback": False}),
    "randomk without feedback": ("randomk", {"error_feedback": False}),
    "signnorm without feedback": ("signnorm", {"error_feedback": False}),
    "signnorm with mask": ("signnorm", {"mask_zeros": True}),
    "signvote with mask": ("signvote", {"mask_zeros": True}),
    "qsgd of 4 bits": ("qsgd", {"bits": 4, "norm": "2"}),
    "qsgd of 2 bits": ("qsgd", {"bits": 2, "block": 32}),
}
CASES = {name: make(name, **OPTIONS.get(name, {})) for name in names()} | {
    title: make(name, **options) for title, (name, options) in VARIANTS.items()
}
EXACT = ("none",)
FEEDBACK = (
    "topk",
    "topk of a bucket",
    "randomk",
    "randomblock",
    "signnorm",
    "signnorm with mask",
    "efsign",
    "onebit",
    "powersgd",
    "acpsgd",
)
DTYPES = ("float64", "float32", "float16", "uint16")
SIZES = (1, 2, 3, 4, 7)
SHAPES = ((5,), (3, 4), (3, 4), (1,), (33, 2, 2), (0,), (70,))
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


# What is promised: each function fails for a compressor that breaks its promise.


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


EVERYONE = (
    ranks_end_alike,
    zero_stays_zero,
    payload_is_what_travels,
    goes_on_where_it_was,
    other_size_owes_the_same,
    layout_in_memory_is_nothing,
)


@pytest.mark.parametrize("promise", EVERYONE, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("title", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_promises_of_everyone(title, dtype, promise):
    for size in SIZES if promise is ranks_end_alike else (1, 3):
        promise(CASES[title], dtype, size)


@pytest.mark.parametrize("title", [*EXACT, *FEEDBACK])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_lost(title, dtype):
    for size in SIZES:
        nothing_is_lost(CASES[title], dtype, size)


@pytest.mark.parametrize("title", FEEDBACK)
def test_debts_stay_bounded(title):
    for size in (1, 3):
        debts_stay_bounded(CASES[title], size=size)


def test_those_without_feedback_owe_nothing():
    specs = specs_of(SHAPES, "float32")
    for title in set(CASES) - set(FEEDBACK):
        ranks = Ranks(CASES[title], specs, 2)
        ranks.reduce(Draws(specs, 2)())
        assert not np.concatenate(owed(ranks)).any(), title


@pytest.mark.parametrize("title", CASES)
@settings(max_examples=12, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=4),
    size=st.integers(1, 7),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(-(2**63), 2**63),
    zeros=st.sampled_from((0.0, 0.5, 0.99)),
    scale=st.sampled_from((1e-4, 1.0, 1e3)),
)
def test_any_shapes_and_values(title, shapes, size, dtype, seed, zeros, scale):
    specs = specs_of(shapes, dtype)
    ranks = Ranks(CASES[title], specs, size, seed=seed)
    draw = Draws(specs, size, abs(seed), zeros, scale)
    for _ in range(3):
        gradients, before = draw(), owed(ranks)
        wanted = [g + o for g, o in zip(total(gradients), before, strict=True)]
        ranks.reduce(gradients)
        assert all_equal(gradients)
        got = [r + o for r, o in zip(total(gradients), owed(ranks), strict=True)]
        if title in FEEDBACK:
            assert close(got, wanted, dtype, [*wanted, np.array([scale])])


@pytest.mark.parametrize("title", CASES)
def test_compressors_are_values(title):
    compressor = CASES[title]
    assert pickle.loads(pickle.dumps(compressor)) == compressor
    assert hash(compressor) == hash(pickle.loads(pickle.dumps(compressor)))
    assert compressor.name in names()
    for field in compressor.__dataclass_fields__:
        assert f"{field}={getattr(compressor, field)!r}" in repr(compressor)


@pytest.mark.parametrize("title", CASES)
def test_states_of_others_are_refused(title):
    compressor, specs = CASES[title], specs_of(SHAPES, "float32")
    ranks = Ranks(compressor, specs, 2)
    stranger = "topk" if compressor.name != "topk" else "onebit"
    others = [Ranks(CASES[stranger], specs, 2).states()]
    others.append(Ranks(compressor, specs_of(SHAPES[:-1], "float32"), 2).states())
    others.append(
        Ranks(compressor, specs_of([*SHAPES[:-1], (69,)], "float32"), 2).states()
    )
    for states in others:
        with pytest.raises(ConfigError, match="load"):
            ranks.load(states)


def test_the_example_of_the_documentation_keeps_the_promises():
    page = Path(__file__).parents[2].joinpath("docs/compression.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names_of_example = {"__name__": __name__}
    exec(compile(source, "docs/compression.md", "exec"), names_of_example)
    for promise in (*EVERYONE, nothing_is_lost, debts_stay_bounded):
        promise(names_of_example["Int8"]())


# Planted faults: what each of them breaks must be found.


@dataclass(frozen=True)
class Spoilt:
    """A compressor whose reductions are spoilt as soon as they are made."""

    compressor: object
    spoil: Callable
    name: str = "spoilt"

    def start(self, specs, place):
        return self.spoil(self.compressor.start(specs, place), specs, place)


class Wrapped:
    """A reduction with another `reduce`."""

    def __init__(self, reduction, reduce):
        self._reduction, self._reduce = reduction, reduce

    def __getattr__(self, name):
        return getattr(self._reduction, name)

    def reduce(self, indices, gradients, step):
        yield from self._reduce(self._reduction, indices, gradients, step)


def error_of_wrong_sign(reduction, specs, place):
    """memory = input + decoded, as the SignReducer of the PowerSGD paper's code has it."""
    add = reduction._codec.add
    reduction._codec.add = lambda code, out, layout, weight: add(
        code, out, layout, abs(weight)
    )
    return reduction


def residual_from_the_mean(reduction, specs, place):
    """memory = input - mean, which forgets what only this rank had sent."""

    def reduce(inner, indices, gradients, step):
        memory = inner.memory.own.block(indices)
        asked = memory + np.concatenate(gradients)
        yield from inner.reduce(indices, gradients, step)
        inner.memory.own.block(indices)[:] = asked - np.concatenate(gradients) / 2

    return Wrapped(reduction, reduce)


def residual_by_position(reduction, specs, place):
    """What is owed belongs to the place in a bucket, so a new bucket pays another's."""
    block = reduction.memory.own.block
    everything = tuple(range(len(specs)))
    sizes = [int(np.prod(spec.shape)) for spec in specs]

    def by_position(indices):
        return block(everything)[: sum(sizes[index] for index in indices)]

    reduction.memory.own.block = by_position
    return reduction


def drawn_by_rank(reduction, specs, place):
    """Each rank draws coordinates of its own."""
    reduction.place = place._replace(seed=place.rank)
    return reduction


def forgetful(reduction, specs, place):
    """A state in which nothing is owed."""
    state = reduction.state
    reduction.state = lambda: {k: np.zeros_like(v) if "resid" in k else v
                               for k, v in state().items()}  # fmt: skip
    return reduction


def own_share_only(reduction, specs, place):
    """Another number of ranks, and each goes on with the first rank's debts."""
    reduction.load = lambda states: reduction.memory._resume(states[0])
    return reduction


def half_the_bytes(reduction, specs, place):
    """Bits are counted, bytes travel."""
    count = reduction.payload_bytes
    reduction.payload_bytes = lambda index, phase: count(index, phase) // 2
    return reduction


def zero_counts_as_one(reduction, specs, place):
    """Scales that are never zero."""
    reduction._codec._levels = lambda values: (-1.0, 1.0)
    return reduction


PLANTED = (
    ("signnorm", error_of_wrong_sign, nothing_is_lost),
    ("signnorm", error_of_wrong_sign, debts_stay_bounded),
    ("signnorm", residual_from_the_mean, nothing_is_lost),
    ("topk", residual_by_position, nothing_is_lost),
    ("randomk", drawn_by_rank, nothing_is_lost),
    ("randomk", drawn_by_rank, ranks_end_alike),
    ("topk", forgetful, goes_on_where_it_was),
    ("topk", own_share_only, other_size_owes_the_same),
    ("onebit", half_the_bytes, payload_is_what_travels),
    ("signnorm", zero_counts_as_one, zero_stays_zero),
)


@pytest.mark.parametrize(
    ("title", "spoil", "promise"),
    PLANTED,
    ids=[f"{spoil.__name__}-{promise.__name__}" for _, spoil, promise in PLANTED],
)
def test_planted_faults_are_found(title, spoil, promise):
    promise(CASES[title])
    with pytest.raises(AssertionError):
        promise(Spoilt(CASES[title], spoil))
