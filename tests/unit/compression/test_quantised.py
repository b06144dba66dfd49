"""Rounding by chance: right on average, never far off, zeros kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ranks_in_memory import Ranks

from acidmpi.compression.protocol import AllToAll, Gather, Spec
from acidmpi.compression.quantised import QSGD, TernGrad, _squeeze, _stretch
from acidmpi.errors import ConfigError

ALL = [
    QSGD(block=64),
    QSGD(bits=4, block=64),
    QSGD(bits=2, block=64),
    QSGD(bits=4, norm="2", block=64),
    TernGrad(),
]


@given(st.sampled_from((2, 4, 8)), st.integers(0, 5), st.integers(0, 2**32))
def test_whole_numbers_survive_squeezing(bits, rows, seed):
    largest = 2 ** (bits - 1) - 1
    draw = np.random.default_rng(seed)
    whole = draw.integers(-largest, largest, (rows, 32), np.int8, endpoint=True)
    squeezed = _squeeze(whole, bits)
    assert squeezed.shape == (rows, 4 * bits)
    assert np.array_equal(_stretch(squeezed, bits), whole)


@pytest.mark.parametrize("compressor", ALL, ids=repr)
@pytest.mark.parametrize("size", [1, 3])
def test_the_expectation_is_the_mean_gradient(compressor, size):
    """The mean over many equal blocks is within 5 of its own measured deviations."""
    blocks, repeats = 600, 10
    rows = np.random.default_rng(1).standard_normal((size, 64)).astype("f4")
    ranks = Ranks(compressor, [Spec((64 * blocks,), np.dtype("f4"))], size)
    results = np.empty((repeats, blocks, 64))
    for result in results:
        gradients = [[np.tile(row, blocks)] for row in rows]
        ranks.reduce(gradients)
        result[:] = gradients[0][0].reshape(blocks, 64)
    results = results.reshape(-1, 64)
    deviation = results.std(axis=0) / np.sqrt(len(results))
    error = np.abs(results.mean(axis=0) - rows.mean(axis=0))
    assert (error <= 5 * deviation + 1e-5).all()
    assert (results.std(axis=0) > 0).any()


@pytest.mark.parametrize(("bits", "levels"), [(2, 1), (4, 7), (8, 127)])
def test_one_rank_errs_by_less_than_two_levels(bits, levels):
    """Two roundings, each by less than one level of its block."""
    values = np.random.default_rng(0).standard_normal(2000).astype("f4")
    gradients = [[values.copy()]]
    Ranks(QSGD(bits=bits, block=64), [Spec((2000,), np.dtype("f4"))], 1).reduce(
        gradients
    )
    padded = np.zeros(2048)
    padded[:2000] = np.abs(values)
    level = np.repeat(padded.reshape(-1, 64).max(axis=1), 64)[:2000] / levels
    assert (np.abs(gradients[0][0] - values) <= 2 * level * (1 + 1e-5)).all()


@pytest.mark.parametrize("compressor", ALL, ids=repr)
def test_zeros_stay_zeros(compressor):
    values = np.zeros(100, "f4")
    values[::7] = 3
    ranks = Ranks(compressor, [Spec((100,), np.dtype("f4"))], 2)
    for _ in range(20):
        gradients = [[values.copy()] for _ in range(2)]
        ranks.reduce(gradients)
        assert not gradients[0][0][values == 0].any()


@pytest.mark.parametrize("compressor", ALL, ids=repr)
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30])
def test_sizes_near_the_ends_of_float32(compressor, scale):
    values = (np.random.default_rng(0).uniform(-1, 1, 64) * scale).astype("f4")
    gradients = [[values.copy()] for _ in range(2)]
    Ranks(compressor, [Spec((64,), np.dtype("f4"))], 2).reduce(gradients)
    assert np.isfinite(gradients[0][0]).all()
    limit = 8 if getattr(compressor, "norm", "max") == "2" else 1
    largest = np.abs(values).max()
    assert np.abs(gradients[0][0]).max() <= limit * largest * (1 + 1e-5) + 1e-44


def test_ranks_and_steps_round_differently():
    specs, values = [Spec((64,), np.dtype("f4"))], np.linspace(-1, 1, 64, dtype="f4")
    ranks, seen = Ranks(TernGrad(), specs, 1), set()
    for step in range(4):
        gradients = [[values.copy()]]
        ranks.reduce(gradients, step=step)
        seen.add(gradients[0][0].tobytes())
    assert len(seen) == 4
    two = [[values.copy()] for _ in range(2)]
    Ranks(TernGrad(), specs, 2).reduce(two)
    assert {-0.5, 0.5} <= set(two[0][0].tolist()), "both ranks drew the same"


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bits_that_travel(bits):
    ranks = Ranks(QSGD(bits=bits, block=256), [Spec((4096,), np.dtype("f4"))], 4)
    ranks.reduce([[np.ones(4096, "f4")] for _ in range(4)])
    assert ranks.traffic.kinds == [AllToAll, Gather]
    assert ranks.traffic.sent_bytes == [(4096 * bits // 8 + 4 * 16) * 5 // 4] * 4


def test_terngrad_takes_two_bits():
    ranks = Ranks(TernGrad(), [Spec((6400,), np.dtype("f4"))], 2)
    ranks.reduce([[np.ones(6400, "f4")] for _ in range(2)])
    assert ranks.traffic.sent_bytes == [1600 + 4] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 3},
        {"bits": True},
        {"bits": 8.0},
        {"bits": [8]},
        {"norm": "1"},
        {"block": 100},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must be"):
        QSGD(**options)
