"""A gradient that is not finite: known at once on the host, later on a device."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.guarded import GuardedHost
from support.instant_device import InstantDevice
from torch import nn

from acidmpi.arrays.device_site import DeviceSite
from acidmpi.arrays.torch import FlatModel
from acidmpi.errors import NonFiniteError
from acidmpi.faults.drill import Drill
from acidmpi.faults.plan import Plan
from acidmpi.kernels import load
from acidmpi.worker.state import RankState
from acidmpi.worker.torch.finiteness import (
    LateFiniteness,
    PromptFiniteness,
    make_finiteness,
)
from acidmpi.worker.torch.optimizers import fuse
from acidmpi.worker.units import LogicalUnits
from acidmpi.worker.verdicts import LATE

BAD = (2, 5, 6, 11)
STEPS = 13


class LateDevice(InstantDevice):
    """Works at once, and says of its events so only when it is let."""

    recorded = 0
    said = float("inf")

    def record(self, stream):
        self.recorded += 1
        return self.recorded

    def done(self, event):
        return event <= self.said


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.1)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)


class Run:
    """One rank's model, with its parts in the place of an engine."""

    def __init__(self, make_optimizer, choice, device=None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        self.model[1].bias.requires_grad_(False)
        parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(
            [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.05}]
        )
        self.flat = FlatModel(
            self.model.named_parameters(),
            [group["params"] for group in self.optimizer.param_groups],
        )
        self.flat.accelerator = device
        self.fused = fuse(self.optimizer, self.flat)
        arrays = [buffer.values for buffer in self.flat.buffers]
        kernels, units = GuardedHost(load("reference")), LogicalUnits()
        site = {} if device is None else {"site": DeviceSite(device)}
        self.state = RankState(arrays, kernels, units, True, **site)
        self.engine = SimpleNamespace(
            parts=SimpleNamespace(state=self.state), rank=3, next_gradient=self.number
        )
        self.steps = 0
        self.finiteness = make_finiteness(
            self.flat, self.fused, self.engine, choice, self.unguarded
        )

    def number(self):
        return self.steps + 1

    def unguarded(self, zero_grad):
        updates = self.fused.updates(zero_grad)
        return lambda: self.state.apply_gradient(updates)

    def step(self):
        chance = np.random.default_rng(self.steps)
        for layer in (self.model[0], self.model[2]):  # one between has no gradient
            for parameter in layer.parameters():
                values = chance.standard_normal(tuple(parameter.shape))
                parameter.grad = torch.tensor(values, dtype=torch.float32)
        if self.steps + 1 in BAD:
            self.model[2].weight.grad[1, 2] = float("nan")
        self.flat.collect_gradients()
        event = self.finiteness.event(zero_grad=False)
        if event is not None:
            event()
        self.steps += 1

    @property
    def x(self):
        return self.flat.values[0].clone().numpy()

    def ages(self):
        return self.fused.state()["ages"].tolist()


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
def test_skipping_on_a_device_is_skipping_on_the_host(make_optimizer):
    host = Run(make_optimizer, "skip")
    device = Run(make_optimizer, "skip", InstantDevice())
    assert isinstance(host.finiteness, PromptFiniteness)
    assert isinstance(device.finiteness, LateFiniteness)
    for _ in range(STEPS):
        host.step()
        device.step()
    assert device.finiteness.settle() is None
    np.testing.assert_array_equal(device.x, host.x)
    assert device.finiteness.skipped == host.finiteness.skipped == len(BAD)
    assert device.ages() == host.ages()


def test_late_news_are_the_same_news(monkeypatch):
    """SGD without dampening needs no age; with Adam the ages are right in the end."""
    host, late = Run(sgd, "skip"), Run(sgd, "skip", LateDevice())
    other = Run(adam, "skip", LateDevice())
    for run in (host, late, other):
        for _ in range(LATE):
            if run.flat.accelerator is not None:
                run.flat.accelerator.said = 0
            run.step()
    assert (late.finiteness.skipped, host.finiteness.skipped) == (0, 3)
    assert max(other.ages()) == LATE
    np.testing.assert_array_equal(late.x, host.x)
    for run in (late, other):
        run.flat.accelerator.said = float("inf")
        assert run.finiteness.settle() is None
        assert run.finiteness.skipped == 3
    assert max(other.ages()) == LATE - 3


@pytest.mark.parametrize("close", [False, True])
def test_an_error_comes_later_and_names_the_parameter(close):
    late = Run(sgd, "raise", InstantDevice())
    late.step()
    before = late.x
    late.step()
    np.testing.assert_array_equal(late.x, before)
    if close:
        error = late.finiteness.settle()
    else:
        with pytest.raises(NonFiniteError) as caught:
            late.step()
        error = caught.value
    assert str(error).startswith(
        "the gradient of '2.weight' is not finite in gradient 2 of rank 3; lower"
    )
    np.testing.assert_array_equal(late.x, before)
    assert late.ages() == [1, 1, 0, 1, 1]
    assert late.finiteness.settle() is None


def test_the_host_raises_before_the_event():
    prompt = Run(sgd, "raise")
    prompt.step()
    with pytest.raises(NonFiniteError, match=r"'2\.weight' .* gradient 2 of rank 3"):
        prompt.step()
    assert prompt.ages() == [1, 1, 0, 1, 1]


def test_ages_that_were_loaded_meanwhile_are_right():
    late = Run(adam, "skip", LateDevice())
    late.step()
    saved = late.optimizer.state_dict()
    late.flat.accelerator.said = 0
    late.step()
    late.optimizer.load_state_dict(saved)
    late.flat.accelerator.said = float("inf")
    assert late.finiteness.settle() is None
    assert late.finiteness.skipped == 1
    saved_ages = {int(state["step"]) for state in saved["state"].values()}
    assert saved_ages == set(late.ages()) - {0}


def test_an_optimizer_with_a_step_of_its_own_is_looked_at_before():
    run = Run(sgd, "skip")
    found = make_finiteness(run.flat, None, run.engine, "skip", run.unguarded)
    assert isinstance(found, PromptFiniteness)
    run.flat.accelerator = InstantDevice()
    found = make_finiteness(run.flat, None, run.engine, "skip", run.unguarded)
    assert isinstance(found, PromptFiniteness)


@pytest.mark.parametrize("device", [None, InstantDevice()])
def test_a_fault_to_order_is_put_where_it_is_looked_for(device, monkeypatch):
    monkeypatch.setattr("acidmpi.faults.actions.announce", lambda *what: None)
    run = Run(sgd, "skip", device)
    drill = Drill(Plan.of("rank=0 at=gradient:1 do=nan"), 0, 1)
    drill.spoil_before(
        run.finiteness, "look", lambda: run.flat.gradients[0], run.number
    )
    run.step()
    assert run.finiteness.settle() is None
    assert run.finiteness.skipped == 1
    assert np.isfinite(run.x).all()
