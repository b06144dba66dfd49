import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.kernels.hyper import Adam


@given(st.integers(1, 200), st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_constant_gradient_is_stepped_by_lr_whatever_the_step(step, beta_1, beta_2):
    first = second = 0.0
    for _ in range(step):
        first = beta_1 * first + (1 - beta_1) * 3.0
        second = beta_2 * second + (1 - beta_2) * 9.0
    hyper = Adam(0.1, beta_1, beta_2, 0.0, 0.0, decoupled=False, step=step)
    update = hyper.step_size * first / (second**0.5 / hyper.second_root)
    assert update == pytest.approx(0.1, rel=1e-6)
