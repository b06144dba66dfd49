"""What `compression.protocol` promises, of every compressor that has a name."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compression_promises import (
    EVERYONE,
    SHAPES,
    SMALL,
    Draws,
    all_equal,
    close,
    debts_stay_bounded,
    nothing_is_lost,
    owed,
    ranks_end_alike,
    specs_of,
    total,
)
from support.ranks_in_memory import Ranks

from acidmpi.compression.registry import make, names
from acidmpi.errors import ConfigError

OPTIONS = SMALL | {
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
