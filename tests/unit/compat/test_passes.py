"""Which backward passes are averaged."""

from contextlib import contextmanager

import pytest
import torch

from acidmpi.compat.horovod.passes import Passes
from acidmpi.errors import ConfigError


class Optimizer:
    """Notes which gradients it would average, from a hook as the real one's."""

    def __init__(self, parameters, per_step):
        self.pausing = 0
        self.averaged = []
        self.passes = Passes(per_step, self.no_sync)
        self.passes.watch(parameters)
        for number, parameter in enumerate(parameters):
            parameter.register_post_accumulate_grad_hook(self.hook(number))
        self.passes.begin()

    @contextmanager
    def no_sync(self):
        self.pausing += 1
        yield
        self.pausing -= 1

    def hook(self, number):
        return lambda _: None if self.pausing else self.averaged.append(number)


@pytest.fixture
def parameters():
    return [torch.ones(2, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("per_step", [1, 2, 3])
def test_only_the_last_pass_counts(parameters, per_step):
    optimizer = Optimizer(parameters, per_step)
    for step in range(1, 3):
        for k in range(per_step):
            assert len(optimizer.averaged) == (2 * (step - 1))
            sum(p.sum() for p in parameters).backward()
            assert optimizer.pausing == (k < per_step - 1)
        assert len(optimizer.averaged) == 2 * step
        optimizer.passes.begin()


def test_parameters_are_counted_one_by_one(parameters):
    optimizer = Optimizer(parameters, 2)
    parameters[0].sum().backward()
    sum(p.sum() for p in parameters).backward()
    assert optimizer.averaged == [0]


def test_too_many_passes(parameters):
    optimizer = Optimizer(parameters, 1)
    parameters[0].sum().backward()
    with pytest.raises(ConfigError, match="backward_passes_per_step"):
        parameters[0].sum().backward()
    optimizer.passes.begin()
    parameters[0].sum().backward()


def test_closing_takes_hooks_off_and_pauses_nothing(parameters):
    optimizer = Optimizer(parameters, 2)
    assert optimizer.pausing == 1
    optimizer.passes.close()
    assert optimizer.pausing == 0
    for _ in range(3):
        parameters[0].sum().backward()
    assert optimizer.averaged == [0, 0, 0]


def test_a_number_of_passes_that_makes_no_sense(parameters):
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        Passes(0, lambda: None)
