"""Gradients of vectors: torch's momentum SGD without torch, clipped, refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acidmpi.errors import DeviceMemoryError, NonFiniteError
from acidmpi.train.gradients import MomentumSGD, Network, clipped, told, usable
from acidmpi.train.plan import Plan, Recipe


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


class Full:
    """A task whose loss does not fit on its device."""

    def make_model(self):
        return torch.nn.Linear(1, 1)

    def batches(self):
        return iter(range(9))

    def loss(self, model, batch):
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"
        )


def test_a_full_device_is_said_with_what_to_do():
    recipe = Recipe(batch_size=1, lr=0.1, momentum=0, weight_decay=0, epochs=1.0)
    plan = Plan(recipe=recipe, total_gradients=9, average_every=None, rate=float)
    network = Network(Full(), plan, fused=False)
    with pytest.raises(DeviceMemoryError) as told_so:
        network.backward(0.1)
    text = str(told_so.value)
    assert "Tried to allocate 2.00 GiB" in text
    assert "total capacity" not in text
    assert "lower --batch-size" in text
    assert isinstance(told_so.value.__cause__, torch.cuda.OutOfMemoryError)
