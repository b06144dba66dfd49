"""Low rank: how close it comes, what it loses, and what it must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ranks_in_memory import Ranks

from acidmpi.arrays import bfloat16
from acidmpi.compression.lowrank import ACPSGD, PowerSGD
from acidmpi.compression.lowrank_reduction import LowRankReduction
from acidmpi.compression.packing import widen
from acidmpi.compression.protocol import Place, Spec
from acidmpi.errors import ConfigError

METHODS = (PowerSGD, ACPSGD)
ALL = {"min_compression_rate": 0.0}
DTYPES = ("float64", "float32", "float16", "uint16")
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "uint16": 5e-2}


def specs_of(*shapes, dtype="float64"):
    return [Spec(shape, np.dtype(dtype)) for shape in shapes]


def draw(specs, size, seed=0):
    """Gradients of all ranks: `[rank][parameter]`, one-dimensional."""
    generator = np.random.default_rng(seed)
    return [
        [as_type(generator.standard_normal(np.prod(s.shape)), s.dtype) for s in specs]
        for _ in range(size)
    ]


def as_type(values, dtype):
    if dtype == np.uint16:
        return bfloat16.encode(values.astype(np.float32))
    return values.astype(dtype)


def copies(gradients):
    return [[array.copy() for array in mine] for mine in gradients]


def mean_over(ranks):
    return [
        np.mean([widen(a) for a in arrays], axis=0)
        for arrays in zip(*ranks, strict=True)
    ]


def reduced(ranks, gradients, **options):
    """What all ranks end with; they must agree to the last bit."""
    gradients = copies(gradients)
    ranks.reduce(gradients, **options)
    for mine in gradients[1:]:
        for array, first in zip(mine, gradients[0], strict=True):
            np.testing.assert_array_equal(array, first)
    return gradients[0]


def residual_sum(ranks):
    """Over ranks, by matrix."""
    found = [
        [array for name, array in sorted(state.items()) if "residual" in name]
        for state in ranks.states()
    ]
    return [np.sum(arrays, axis=0) for arrays in zip(*found, strict=True)]


def test_draws_differ_by_seed_and_by_parameter():
    specs = specs_of((8, 9), (8, 9))
    one, other = (ACPSGD().start(specs, Place(0, 1, seed)) for seed in (1, 2))
    drawn = [one.state()["right.0"], one.state()["right.1"], other.state()["right.0"]]
    assert len({array.tobytes() for array in drawn}) == 3


@pytest.mark.parametrize("method", METHODS)
def test_ranks_agree_whatever_their_own_generators_have_drawn(method):
    specs = specs_of((8, 9), (3, 4, 5))
    compressor = method(matrix_rank=2, start_step=0)
    ranks = Ranks(compressor, specs, 3)
    for rank, place in enumerate(ranks.places):
        np.random.seed(rank)
        ranks.reductions[rank] = compressor.start(specs, place)
    for step in range(4):
        reduced(ranks, draw(specs, 3, step))


def test_factors_that_differ_by_rank_are_found():
    specs = specs_of((8, 9))
    ranks = Ranks(ACPSGD(2), specs, 2)
    ranks.reductions[1] = ACPSGD(2).start(specs, Place(1, 2, seed=1))
    reduced(ranks, draw(specs, 2, 0))
    with pytest.raises(AssertionError):
        reduced(ranks, draw(specs, 2, 1))


def check_nothing_is_lost(make_ranks, specs, steps):
    """Mean of (applied + residual) = mean gradient + mean residual before."""
    ranks = make_ranks()
    for step in range(steps):
        gradients = draw(specs, ranks.size, step)
        before, mean = residual_sum(ranks), mean_over(gradients)
        applied = reduced(ranks, gradients)
        for owed, owes, given_, got in zip(
            before, residual_sum(ranks), mean, applied, strict=True
        ):
            np.testing.assert_allclose(
                widen(got) + owes / ranks.size,
                given_ + owed / ranks.size,
                atol=5 * TOLERANCE[str(specs[0].dtype)],
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("start_step", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_applied_and_residual_are_what_came_in(method, start_step, size, dtype):
    specs = specs_of((6, 7), (4, 3, 5), dtype=dtype)
    compressor = method(matrix_rank=2, start_step=start_step, **ALL)
    check_nothing_is_lost(lambda: Ranks(compressor, specs, size), specs, steps=5)


def test_a_residual_that_is_not_subtracted_from_is_found(monkeypatch):
    monkeypatch.setattr(LowRankReduction, "_leave", lambda *_: None)
    specs = specs_of((6, 7))
    with pytest.raises(AssertionError):
        check_nothing_is_lost(lambda: Ranks(ACPSGD(2), specs, 2), specs, steps=3)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 2),
    st.lists(
        st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple),
        min_size=1,
        max_size=4,
    ),
)
def test_nothing_is_lost_whatever_the_shapes(
    method, size, matrix_rank, start_step, shapes
):
    specs = specs_of(*shapes)
    compressor = PowerSGD(matrix_rank, start_step, 0.0)
    if method is ACPSGD:
        compressor = ACPSGD(matrix_rank, start_step, 0.0)
        specs = [
            s for s in specs if min(s.shape[0], np.prod(s.shape[1:])) > matrix_rank
        ]
    if specs:
        check_nothing_is_lost(lambda: Ranks(compressor, specs, size), specs, steps=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start_step", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_full_matrix_rank_is_no_compression(method, start_step, dtype):
    specs = specs_of((5, 6), (7, 2, 2), (5, 6), (3,), dtype=dtype)
    ranks = Ranks(method(matrix_rank=6, start_step=start_step, **ALL), specs, 3)
    for step in range(4):
        gradients = draw(specs, 3, step)
        got = reduced(ranks, gradients)
        for array, mean in zip(got, mean_over(gradients), strict=True):
            np.testing.assert_allclose(widen(array), mean, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("method", METHODS)
def test_many_matrices_of_one_shape_and_of_rank_one_are_recovered(method, count):
    specs = specs_of(*[(9, 12)] * count)
    generator = np.random.default_rng(0)
    outer = [
        np.outer(generator.standard_normal(9), generator.standard_normal(12))
        for _ in specs
    ]
    ranks = Ranks(method(matrix_rank=1, start_step=0), specs, 1)
    for _ in range(3):
        got = reduced(ranks, [[matrix.reshape(-1) for matrix in outer]])
        for array, matrix in zip(got, outer, strict=True):
            np.testing.assert_allclose(array, matrix.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("error_feedback", [True, False])
@pytest.mark.parametrize("matrix_rank", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_zeros_give_zeros_and_are_recovered_from(
    method, matrix_rank, error_feedback, dtype
):
    specs = specs_of((6, 8), (6, 8), dtype=dtype)
    compressor = method(matrix_rank=matrix_rank, error_feedback=error_feedback)
    ranks = Ranks(compressor, specs, 2)
    zeros = [[np.zeros(48, dtype), np.zeros(48, dtype)] for _ in range(2)]
    for _ in range(4):
        for array in reduced(ranks, zeros):
            np.testing.assert_array_equal(array, 0.0)
    outer = np.outer(np.arange(6), np.arange(8) % 3).astype(dtype).reshape(-1)
    outputs = [reduced(ranks, [[outer, zeros[0][1]]] * 2) for _ in range(8)]
    first, second = np.mean(outputs[-2:], axis=0)
    np.testing.assert_allclose(first, outer, atol=1e-4)
    np.testing.assert_array_equal(second, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_column_of_zeros_stays_one(method):
    specs = specs_of((6, 8), dtype="float32")
    ranks = Ranks(method(matrix_rank=2), specs, 2)
    for step in range(6):
        gradients = draw(specs, 2, step)
        for (gradient,) in gradients:
            gradient.reshape(6, 8)[:, 3] = 0.0
        (got,) = reduced(ranks, gradients)
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got.reshape(6, 8)[:, 3], 0.0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_buckets_and_their_order_do_not_matter(method):
    specs = specs_of((6, 8), (3, 9), (6, 8), (5,), (6, 8), dtype="float32")
    compressor = method(matrix_rank=3, **ALL)
    together, apart, turned = (Ranks(compressor, specs, 2) for _ in range(3))
    for step in range(5):
        gradients = draw(specs, 2, step)
        expected = reduced(together, gradients)
        single = [reduced(apart, [[g[i]] for g in gradients], indices=[i], step=step)
                  for i in (2, 0, 4, 1, 3)]  # fmt: skip
        order = [4, 3, 0, 2, 1]
        other = reduced(
            turned, [[g[i] for i in order] for g in gradients], indices=order
        )
        for position, index in enumerate((2, 0, 4, 1, 3)):
            np.testing.assert_array_equal(single[position][0], expected[index])
        for position, index in enumerate(order):
            np.testing.assert_array_equal(other[position], expected[index])


@pytest.mark.parametrize("stop", range(4))
@pytest.mark.parametrize(
    "compressor",
    [
        PowerSGD(2),
        PowerSGD(2, warm_start=False, start_step=0),
        ACPSGD(2),
        ACPSGD(2, start_step=0, error_feedback=False),
    ],
    ids=repr,
)
def test_goes_on_bit_for_bit(compressor, stop):
    specs = specs_of((6, 8), (3,), (7, 5), dtype="float32")
    ranks, resumed = Ranks(compressor, specs, 2), Ranks(compressor, specs, 2, seed=9)
    if not getattr(compressor, "warm_start", True):
        resumed = Ranks(compressor, specs, 2)
    for step in range(stop):
        reduced(ranks, draw(specs, 2, step))
    resumed.load(ranks.states())
    for step in range(stop, stop + 4):
        gradients = draw(specs, 2, step)
        expected = reduced(ranks, gradients, step=step)
        for array, mine in zip(
            reduced(resumed, gradients, step=step), expected, strict=True
        ):
            np.testing.assert_array_equal(array, mine)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("method", METHODS)
def test_another_number_of_ranks_owes_the_same(method, size):
    specs = specs_of((6, 8), (3,), (7, 5))
    ranks = Ranks(method(2, start_step=0, **ALL), specs, 3)
    for step in range(3):
        reduced(ranks, draw(specs, 3, step))
    others = Ranks(ranks.compressor, specs, size)
    others.load(ranks.states())
    for owed, owes in zip(residual_sum(ranks), residual_sum(others), strict=True):
        np.testing.assert_allclose(owes, owed, atol=1e-12)
    reduced(others, draw(specs, size, 3), step=3)


@pytest.mark.parametrize(
    ("shape", "dtype", "matrix_rank"),
    [((8, 6), "float32", 2), ((6, 8), "float64", 2), ((6, 8), "float32", 1)],
)
def test_a_state_of_others_is_refused_and_changes_nothing(shape, dtype, matrix_rank):
    specs = specs_of((6, 8), dtype="float32")
    mine = ACPSGD(2).start(specs, Place(0, 1, 0))
    other = ACPSGD(matrix_rank).start(specs_of(shape, dtype=dtype), Place(0, 1, 5))
    before = mine.state()
    with pytest.raises(ConfigError, match="saved from"):
        mine.load([other.state()])
    with pytest.raises(ConfigError, match="saved from"):
        mine.load([PowerSGD(2).start(specs, Place(0, 1, 5)).state()])
    for name, array in mine.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_gradients_of_two_types_cannot_share_a_bucket():
    specs = [Spec((4, 5), np.dtype("float32")), Spec((4, 5), np.dtype("float64"))]
    with pytest.raises(ConfigError, match="float32, float64"):
        Ranks(PowerSGD(1), specs, 1).reduce(draw(specs, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {"matrix_rank": 0},
        {"matrix_rank": 2.0},
        {"start_step": -1},
        {"min_compression_rate": -1},
        {"min_compression_rate": float("nan")},
        {"min_compression_rate": "2"},
        {"error_feedback": 1},
    ],
    ids=str,
)
def test_bad_options_are_refused(method, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        method(**options)


def test_warm_start_is_a_flag():
    with pytest.raises(ConfigError, match="warm_start"):
        PowerSGD(warm_start="no")
