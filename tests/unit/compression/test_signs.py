"""Signs: what a bit stands for, and what becomes of zeros."""

import numpy as np
import pytest
from support.ranks_in_memory import Ranks

from acidmpi.compression.protocol import AllToAll, Gather, Spec
from acidmpi.compression.signs import EFSign, OneBit, SignNorm, SignVote
from acidmpi.errors import ConfigError


def mean_of(compressor, *rows, dtype="f4"):
    """What ranks with these gradients end with."""
    specs = [Spec((len(rows[0]),), np.dtype(dtype))]
    gradients = [[np.array(row, dtype)] for row in rows]
    Ranks(compressor, specs, len(rows)).reduce(gradients)
    return gradients[0][0].tolist()


def test_signnorm_is_the_sign_times_the_mean_magnitude():
    assert mean_of(SignNorm(), [3, -1, 0, -4]) == [2, -2, 2, -2]
    assert mean_of(SignNorm(), [3, -1, 0, -4], [1, 1, 1, 1]) == [1.5, -0.5, 1.5, -0.5]


def test_signnorm_scales_each_parameter_by_itself():
    specs = [Spec((3,), np.dtype("f4")), Spec((70,), np.dtype("f4"))]
    gradients = [[np.full(3, -2, "f4"), np.full(70, 5, "f4")]]
    Ranks(SignNorm(), specs, 1).reduce(gradients)
    assert set(gradients[0][0]) == {-2}
    assert set(gradients[0][1]) == {5}


def test_long_parameters_are_decoded_in_pieces():
    values = np.random.default_rng(0).standard_normal(200_003).astype("f4")
    specs = [Spec((5,), np.dtype("f4")), Spec((200_003,), np.dtype("f4"))]
    gradients = [[np.ones(5, "f4"), values.copy()]]
    Ranks(SignNorm(), specs, 1).reduce(gradients)
    assert np.array_equal(np.sign(gradients[0][1]), np.sign(values))
    np.testing.assert_allclose(
        np.abs(gradients[0][1]), np.abs(values).mean(), rtol=1e-5
    )


def test_a_mask_keeps_zeros():
    assert mean_of(SignNorm(mask_zeros=True), [3, -1, 0, -4]) == [2, -2, 0, -2]
    assert mean_of(SignVote(mask_zeros=True), [0, 0, 2], [0, 1, -1]) == [0, 1, 0]


def test_a_masked_zero_stays_zero_with_feedback():
    specs, compressor = [Spec((4,), np.dtype("f4"))], SignNorm(mask_zeros=True)
    ranks = Ranks(compressor, specs, 2)
    for step in range(5):
        gradients = [[np.array([0, 1, step, -2.5], "f4")] for _ in range(2)]
        ranks.reduce(gradients)
        assert gradients[0][0][0] == 0


def test_votes():
    rows = [1, 1, -1, 5], [-2, 3, -1, 0], [1e-9, 2, -1, -7]
    assert mean_of(SignVote(), *rows) == [1, 1, -1, 1]
    assert mean_of(SignVote(), *rows[:2]) == [0, 1, -1, 1]


def test_a_rank_without_a_gradient_abstains():
    assert mean_of(SignVote(), [0, 0], [-1, -1], [-1, 1]) == [-1, 0]
    assert mean_of(SignVote(), [0, 0], [0, 0]) == [0, 0]


def test_onebit_stands_for_two_means():
    assert mean_of(OneBit(), [1, 3, -5, -7, 2]) == [2, 2, -6, -6, 2]
    assert mean_of(OneBit(), [1, 1, 1]) == [1, 1, 1]
    assert mean_of(OneBit(), [-1, -3, -2]) == [-2, -2, -2]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_efsign_sends_signs_of_sums_of_signs(size):
    """Equal magnitudes are exact in both directions; blocks have scales of their own."""
    values = np.repeat([4.0, -3.0, 0.0, 2.0], 32 * size)
    values[::3] *= -1
    specs = [Spec((values.size,), np.dtype("f4"))]
    gradients = [[values.astype("f4")] for _ in range(size)]
    ranks = Ranks(EFSign(block=32), specs, size)
    ranks.reduce(gradients)
    assert gradients[0][0].tolist() == values.tolist()
    assert ranks.traffic.kinds == [AllToAll, Gather]


def test_padding_does_not_dilute_a_scale():
    assert mean_of(EFSign(), [6.0]) == [6]
    assert mean_of(EFSign(), *[[6.0]] * 7) == [6]


@pytest.mark.parametrize(
    "compressor", [SignNorm(), OneBit(), EFSign(block=32), SignNorm(mask_zeros=True)]
)
def test_with_feedback_the_mean_over_time_is_the_gradient(compressor):
    """Different on each rank and constant: the mean result errs by a debt over steps."""
    draw, size, steps = np.random.default_rng(0), 3, 400
    constant = draw.standard_normal((size, 150)).astype("f4")
    ranks = Ranks(compressor, [Spec((150,), np.dtype("f4"))], size)
    total = np.zeros(150)
    for _ in range(steps):
        gradients = [[row.copy()] for row in constant]
        ranks.reduce(gradients)
        total += gradients[0][0]
    error = np.linalg.norm(total / steps - constant.mean(axis=0))
    assert error < 0.1 * np.linalg.norm(constant.mean(axis=0))


def test_one_bit_per_element_travels():
    specs = [Spec((6400,), np.dtype("f4"))]
    for compressor, wanted in (
        (SignNorm(), 800 + 4),
        (SignVote(), 800 + 4),
        (OneBit(), 800 + 8),
        (SignNorm(mask_zeros=True), 1600 + 4),
        (EFSign(block=320), (800 + 80) * 5 // 4),
    ):
        ranks = Ranks(compressor, specs, 4)
        ranks.reduce([[np.ones(6400, "f4")] for _ in range(4)])
        assert ranks.traffic.sent_bytes == [wanted] * 4


@pytest.mark.parametrize("block", [0, 31, 33, 64.0, True])
def test_blocks_are_multiples_of_a_word_of_bits(block):
    with pytest.raises(ConfigError, match="block must be"):
        EFSign(block=block)


def test_flags_are_checked():
    with pytest.raises(ConfigError, match="mask_zeros must be True or False"):
        SignVote(mask_zeros="yes")
