import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.tasks.recipe import learning_rate, scaled_rate, total_gradients

CIFAR = {"lr": 0.1, "batch_size": 128, "epochs": 300}


def test_rises_linearly_to_the_scaled_rate_in_five_epochs():
    rates = [learning_rate(epoch / 300, size=64, **CIFAR) for epoch in (0, 2.5, 5, 149)]
    assert rates == pytest.approx([0.1, 1.65, 3.2, 3.2])


def test_is_divided_by_ten_at_half_and_at_three_quarters():
    rates = [learning_rate(p, size=64, **CIFAR) for p in (0.499, 0.5, 0.749, 0.75, 1.0)]
    assert rates == pytest.approx([3.2, 0.32, 0.32, 0.032, 0.032])


def test_few_samples_a_step_keep_the_rate_asked_for():
    assert scaled_rate(0.1, 128, 1) == 0.1
    assert scaled_rate(0.1, 128, 2) == 0.1
    assert scaled_rate(0.1, 128, 3) == pytest.approx(0.15)


def test_progress_beyond_the_ends_is_taken_as_the_end():
    assert learning_rate(-1, size=4, **CIFAR) == learning_rate(0, size=4, **CIFAR)
    assert learning_rate(1.2, size=4, **CIFAR) == learning_rate(1, size=4, **CIFAR)


def test_no_warm_up_starts_at_the_scaled_rate():
    rate = learning_rate(0, size=64, warmup_epochs=0, decays=(), **CIFAR)
    assert rate == pytest.approx(3.2)


@given(
    progress=st.floats(0, 1),
    size=st.integers(1, 4096),
    batch_size=st.integers(1, 1024),
    epochs=st.floats(0.01, 400),
)
def test_rate_stays_between_a_hundredth_of_the_start_and_the_peak(
    progress, size, batch_size, epochs
):
    rate = learning_rate(
        progress, lr=0.1, batch_size=batch_size, size=size, epochs=epochs
    )
    peak = scaled_rate(0.1, batch_size, size)
    assert 0.00099 <= rate <= peak * (1 + 1e-12)


def test_total_gradients_is_the_work_and_never_nothing():
    assert total_gradients(80, 1437, 16) == 7185
    assert total_gradients(1, 10, 3) == 4
    assert total_gradients(0.001, 10, 3) == 1
