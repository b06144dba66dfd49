"""Gradients of vectors: torch's momentum SGD without torch, clipped, refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acidmpi.errors import NonFiniteError
from acidmpi.train.gradients import MomentumSGD, clipped, told, usable
from acidmpi.train.plan import Recipe


@given(st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_it_is_torchs_momentum_sgd(momentum, weight_decay, seed):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(5)
    parameter = torch.nn.Parameter(torch.from_numpy(x.copy()))
    recipe = Recipe(
        batch_size=1, lr=0.1, momentum=momentum, weight_decay=weight_decay, epochs=1.0
    )
    ours = MomentumSGD(x, recipe)
    theirs = torch.optim.SGD(
        [parameter], lr=0.1, momentum=momentum, weight_decay=weight_decay
    )
    for rate in (0.1, 0.3, 0.01):
        gradient = generator.standard_normal(5)
        theirs.param_groups[0]["lr"] = rate
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        x += ours.change(gradient, rate)
        np.testing.assert_allclose(
            x, parameter.detach().numpy(), rtol=1e-12, atol=1e-13
        )


@given(arrays(np.float64, 4, elements=st.floats(-1e3, 1e3)), st.floats(1e-3, 1e3))
def test_clipping_keeps_direction_and_bounds_the_norm(gradient, limit):
    shorter = clipped(gradient, limit)
    assert np.linalg.norm(shorter) <= limit * (1 + 1e-12)
    norm = np.linalg.norm(gradient)
    if norm <= limit:
        assert (shorter == gradient).all()
    else:
        np.testing.assert_allclose(
            shorter * norm, gradient * limit, rtol=1e-9, atol=1e-300
        )
    assert clipped(gradient, None) is gradient


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_or_left_out(bad):
    fine, spoilt = np.ones(3), np.array([1.0, bad, 1.0])
    assert usable(fine, 0.5, "raise")
    for gradient, loss in ((spoilt, 0.5), (fine, bad)):
        assert not usable(gradient, loss, "skip")
        with pytest.raises(NonFiniteError, match="this rank is not finite; lower --lr"):
            usable(gradient, loss, "raise")
    assert told(bad) is None
    assert told(0.5) == 0.5
