"""Top-k and random-k: what is chosen, and how often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ranks_in_memory import Ranks

from acidmpi.compression.protocol import Gather, Spec, Sum
from acidmpi.compression.sparse import RandomK, TopK, largest, share
from acidmpi.errors import ConfigError

SPECS = [Spec((100,), np.dtype("f4")), Spec((10, 3), np.dtype("f4"))]


def gradients(size, seed=0):
    draw = np.random.default_rng(seed)
    return [
        [draw.standard_normal(n, dtype="f4") for n in (100, 30)] for _ in range(size)
    ]


@given(st.integers(1, 40_000), st.floats(0.001, 0.9), st.sampled_from((1, 3, 1000)))
def test_the_largest_are_chosen(size, density, values):
    """Also with many equal magnitudes, and with those at places a sample never sees."""
    numbers = np.random.default_rng(size).integers(-values, values + 1, size) * 1.0
    numbers[1 :: max(1, size // 4096)] *= 5
    count = share(slice(0, size), density)
    chosen = largest(numbers, count)
    assert len(set(chosen.tolist())) == count
    best = np.sort(np.abs(numbers))[-count:]
    assert np.array_equal(np.sort(np.abs(numbers[chosen])), best)


@pytest.mark.parametrize("filled", [0, 5, 2_000])
def test_mostly_zeros_are_no_exception(filled):
    """As in 3×3 kernels of which only the centre gets a gradient."""
    numbers = np.zeros((10_000, 9))
    numbers[:filled, 4] = np.random.default_rng(0).normal(size=filled)
    chosen = largest(numbers.ravel(), 900)
    assert len(set(chosen.tolist())) == 900
    found = np.sort(np.abs(numbers.ravel()[chosen]))
    assert np.array_equal(found, np.sort(np.abs(numbers.ravel()))[-900:])


def test_each_tensor_sends_its_own_share():
    mine = gradients(1)
    mine[0][0] *= 1000
    before = [array.copy() for array in mine[0]]
    Ranks(TopK(density=0.1), SPECS, 1).reduce(mine)
    for array, old, count in zip(mine[0], before, (10, 3), strict=True):
        kept = np.flatnonzero(array)
        assert kept.size == count
        assert np.array_equal(array[kept], old[kept])


def test_a_bucket_sends_its_largest_wherever_they_are():
    mine = gradients(1)
    mine[0][0] *= 1000
    Ranks(TopK(density=0.1, scope="bucket"), SPECS, 1).reduce(mine)
    assert [np.count_nonzero(array) for array in mine[0]] == [13, 0]


def test_two_ranks_send_different_elements_in_one_message():
    ranks = Ranks(TopK(density=0.1), SPECS, 2)
    mine = gradients(2)
    wanted = np.zeros(100)
    for rank in range(2):
        chosen = np.argsort(np.abs(mine[rank][0]))[-10:]
        wanted[chosen] += mine[rank][0][chosen] / 2
    ranks.reduce(mine)
    np.testing.assert_allclose(mine[0][0], wanted, rtol=1e-6)
    assert ranks.traffic.kinds == [Gather]
    assert ranks.traffic.sent_bytes == [13 * 8] * 2


def test_without_feedback_what_was_left_out_is_lost():
    for feedback, again in ((False, 0), (True, 10)):
        ranks = Ranks(TopK(density=0.1, error_feedback=feedback), SPECS[:1], 1)
        ranks.reduce([[np.arange(100, dtype="f4")]])
        rest = [[np.zeros(100, "f4")]]
        ranks.reduce(rest)
        assert np.count_nonzero(rest[0][0]) == again


@pytest.mark.parametrize("block", [False, True])
def test_random_elements_are_the_mean_of_all_ranks_there(block):
    ranks = Ranks(RandomK(density=0.2, block=block), SPECS, 3, seed=-5)
    mine = gradients(3)
    means = [np.mean(each, axis=0) for each in zip(*mine, strict=True)]
    ranks.reduce(mine)
    assert ranks.traffic.kinds == [Sum]
    assert ranks.traffic.sent_bytes == [(20 + 6) * 4] * 3
    for array, mean, count in zip(mine[0], means, (20, 6), strict=True):
        kept = np.flatnonzero(array)
        assert kept.size == count
        np.testing.assert_allclose(array[kept], mean[kept], rtol=1e-5)


def test_a_block_is_one_run_that_may_wrap_around():
    ranks = Ranks(RandomK(density=0.3, block=True, error_feedback=False), SPECS[:1], 1)
    wrapped = 0
    for _ in range(40):
        mine = [[np.ones(100, "f4")]]
        ranks.reduce(mine)
        edges = np.count_nonzero(np.diff(mine[0][0], append=mine[0][0][0]))
        assert edges == 2
        wrapped += bool(mine[0][0][0] and mine[0][0][-1])
    assert 0 < wrapped < 40


def test_other_steps_seeds_and_parameters_draw_other_elements():
    alike = [Spec((100,), np.dtype("f4"))] * 2
    seen = set()
    for seed in (0, 1):
        ranks = Ranks(RandomK(density=0.1), alike, 1, seed=seed)
        for step in (0, 1):
            mine = [[np.ones(100, "f4"), np.ones(100, "f4")]]
            ranks.load(Ranks(RandomK(density=0.1), alike, 1).states())
            ranks.reduce(mine, step=step)
            seen |= {tuple(np.flatnonzero(array)) for array in mine[0]}
    assert len(seen) == 8


@pytest.mark.parametrize("block", [False, True])
def test_without_feedback_random_elements_are_unbiased(block):
    """1/density times each element one time in 1/density: within 5 deviations."""
    steps, density = 2000, 0.25
    options = RandomK(density=density, block=block, error_feedback=False)
    ranks, total = Ranks(options, SPECS[1:], 1), np.zeros(30)
    values = np.linspace(-1, 1, 30, dtype="f4")
    count = share(slice(0, 30), density)
    for _ in range(steps):
        mine = [[values.copy()]]
        ranks.reduce(mine)
        total += mine[0][0]
    deviation = np.abs(values) * np.sqrt((30 / count - 1) / steps)
    assert (np.abs(total / steps - values) <= 5 * deviation + 1e-6).all()


@pytest.mark.parametrize("density", [0, -1, 1.5, float("nan"), "many"])
@pytest.mark.parametrize("maker", [TopK, RandomK])
def test_a_density_is_a_share(maker, density):
    with pytest.raises(ConfigError, match=r"\(0, 1\].*0\.01"):
        maker(density=density)


def test_other_options_are_checked():
    with pytest.raises(ConfigError, match="'tensor', 'bucket'"):
        TopK(scope="model")
    with pytest.raises(ConfigError, match="block must be True or False, got 1"):
        RandomK(block=1)


def test_density_one_is_everything():
    for compressor in (TopK(density=1.0), RandomK(density=1.0)):
        ranks, mine = Ranks(compressor, SPECS, 2), gradients(2)
        means = [np.mean(each, axis=0) for each in zip(*mine, strict=True)]
        ranks.reduce(mine)
        for array, mean in zip(mine[1], means, strict=True):
            np.testing.assert_allclose(array, mean, rtol=1e-5, atol=1e-7)
