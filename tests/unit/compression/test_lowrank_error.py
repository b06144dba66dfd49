"""How close low rank comes to a fixed matrix, in one step and over many."""

import numpy as np
import pytest
from support.ranks_in_memory import Ranks

from acidmpi.compression.lowrank import ACPSGD, PowerSGD
from acidmpi.compression.lowrank_reduction import LowRankReduction
from acidmpi.compression.protocol import Spec

METHODS = (PowerSGD, ACPSGD)


def decaying_matrix(seed=0):
    """256 x 512 with singular values 0.8^i."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.standard_normal((256, 256)))[0]
    right = np.linalg.qr(generator.standard_normal((512, 256)))[0]
    return (left * 0.8 ** np.arange(256)) @ right.T


def errors_of_the_mean(compressor, steps, matrix, seed=0):
    """Relative error of the output averaged over so many compressed steps."""
    ranks = Ranks(compressor, [Spec(matrix.shape, np.dtype(np.float32))], 1, seed)
    total, errors = np.zeros_like(matrix), {}
    for step in range(compressor.start_step):
        ranks.reduce([[matrix.astype(np.float32).reshape(-1)]], step=step)
    for count in range(1, max(steps) + 1):
        gradient = matrix.astype(np.float32).reshape(-1)
        ranks.reduce([[gradient]])
        total += gradient.reshape(matrix.shape)
        error = np.linalg.norm(total / count - matrix) / np.linalg.norm(matrix)
        errors[count] = float(error)
    return [errors[count] for count in steps]


TABLE_STEPS = (4, 16, 64, 256)


@pytest.mark.parametrize("start_step", [0, 1])
@pytest.mark.parametrize(
    ("method", "table"),
    [
        (PowerSGD, (0.334, 0.129, 0.036, 0.0093)),
        (ACPSGD, (0.379, 0.166, 0.049, 0.0113)),
    ],
)
def test_time_average_closes_in_as_the_reference_does(method, table, start_step):
    """One course differs by 6 % over seeds, and by as much over BLAS libraries and
    processors: feedback makes another course of another rounding.
    """
    compressor = method(start_step=start_step)
    courses = [
        errors_of_the_mean(compressor, TABLE_STEPS, decaying_matrix(seed), seed)
        for seed in range(5)
    ]
    assert np.mean(courses, axis=0) == pytest.approx(table, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_without_error_feedback_the_time_average_stays_away(method):
    compressor = method(error_feedback=False)
    errors = errors_of_the_mean(compressor, TABLE_STEPS[1:], decaying_matrix())
    assert errors == pytest.approx([0.405] * 3, abs=0.01)


def first_errors(compressor):
    return [
        errors_of_the_mean(compressor, (1,), decaying_matrix(seed), seed)[0]
        for seed in range(5)
    ]


@pytest.mark.parametrize("start_step", [0, 1, 3])
def test_first_half_step_is_as_good_as_a_whole_one(start_step):
    whole = np.mean(first_errors(PowerSGD(start_step=0)))
    assert np.mean(first_errors(ACPSGD(start_step=start_step))) <= 1.01 * whole


def test_first_half_step_on_a_random_factor_is_nearly_useless(monkeypatch):
    monkeypatch.setattr(LowRankReduction, "_iterate", lambda *_: None)
    assert min(first_errors(ACPSGD(start_step=1))) > 0.98


def test_a_cold_start_forgets_and_a_warm_one_does_not():
    matrix = decaying_matrix()
    cold = PowerSGD(error_feedback=False, warm_start=False)
    warm = PowerSGD(error_feedback=False)
    (far,) = errors_of_the_mean(cold, (1,), matrix)
    (near,) = errors_of_the_mean(warm, (1,), matrix)
    assert near < 0.9 * far
