import json

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.tasks.quadratic import Quadratic


def make(**options):
    settings = {"dimension": 12, "dtype": np.float64, "seed": 5, **options}
    return Quadratic(**settings)


def test_mean_gradient_is_the_gradient_of_the_loss():
    ranks = [make(rank=rank, size=3, noise=0) for rank in range(3)]
    generator = np.random.default_rng(0)
    x, direction = generator.standard_normal((2, 12))
    mean = np.mean([task.gradient(x, generator) for task in ranks], axis=0)
    step = 1e-5
    ahead, behind = (ranks[0].loss(x + sign * step * direction) for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(mean @ direction)


def test_all_ranks_agree_on_the_loss_and_its_minimum_is_zero():
    ranks = [make(rank=rank, size=3, noise=0) for rank in range(3)]
    x = np.zeros(12)
    for _ in range(2000):
        mean = np.mean([task.gradient(x, task.generator) for task in ranks], axis=0)
        x -= 0.5 * mean
    assert [task.loss(x) for task in ranks] == pytest.approx([0, 0, 0], abs=1e-20)
    assert len({task.loss(x + 1) for task in ranks}) == 1
    assert ranks[0].evaluate(x + 1) == (ranks[0].loss(x + 1), None)


def test_condition_is_the_ratio_of_curvatures():
    task = make(condition=50, noise=0)
    zero, one = np.zeros(12), np.ones(12)
    curvature = task.gradient(one, task.generator) - task.gradient(zero, task.generator)
    assert curvature.max() == pytest.approx(1)
    assert curvature.min() == pytest.approx(1 / 50)


def test_heterogeneity_separates_the_ranks_minima():
    x = np.zeros(400)
    for spread in (0.0, 2.0):
        one, two = (
            make(
                rank=rank,
                size=2,
                noise=0,
                condition=1,
                heterogeneity=spread,
                dimension=400,
            ).gradient(x, np.random.default_rng())
            for rank in range(2)
        )
        assert (one - two).std() == pytest.approx(spread * np.sqrt(2), rel=0.15)


def test_noise_has_the_size_asked_for_and_averages_over_a_batch():
    for batch_size in (1, 16):
        task = make(noise=3, batch_size=batch_size, dimension=5000, condition=1)
        exact = make(noise=0, dimension=5000, condition=1)
        x = task.initial()
        difference = task.gradient(x, task.generator) - exact.gradient(
            x, exact.generator
        )
        assert difference.std() == pytest.approx(3 / np.sqrt(batch_size), rel=0.05)


def test_gradient_leaves_x_alone_and_has_its_type():
    task = make(dtype=np.float32)
    x = task.initial()
    gradient = task.gradient(x, task.generator)
    assert not x.any()
    assert gradient.dtype == x.dtype == np.float32


def test_restored_generator_repeats_its_noise():
    task, other = make(), make(rank=1, size=2)
    x = task.initial()
    task.gradient(x, task.generator)
    state = json.loads(json.dumps(task.state()))
    expected = task.generator.standard_normal(3)
    other.restore(state)
    assert (other.generator.standard_normal(3) == expected).all()


@pytest.mark.parametrize(
    "bad", [{"dimension": 0}, {"condition": 0.5}, {"heterogeneity": -1}, {"noise": -1}]
)
def test_values_that_cannot_be_are_refused_and_shown(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        make(**bad)


def test_survivors_of_a_death_have_an_optimum_of_their_own():
    whole = Quadratic(seed=3, rank=0, size=4, dimension=50)
    alone = np.mean([whole._minimum_of(rank) for rank in (0, 1, 3)], axis=0)
    assert whole.loss(alone) > 0.1
    whole.leave_out((2,))
    assert whole.loss(alone) == pytest.approx(0.0, abs=1e-20)


def test_without_deaths_the_optimum_stays():
    task = Quadratic(seed=3, rank=0, size=4, dimension=50)
    before = task.loss(np.zeros(50))
    task.leave_out(())
    assert task.loss(np.zeros(50)) == before
