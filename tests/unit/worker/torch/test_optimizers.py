"""Fused and foreign steps train as torch does, and keep torch's state format."""

import copy
import io
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from acidmpi.arrays.torch import FlatModel
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.worker.torch.optimizers import GenericOptimizer, fuse

KERNELS = load("reference")
TOLERANCE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-14},
    torch.float32: {"rtol": 1e-5, "atol": 1e-7},
}
OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.05),
    "decay": lambda p: SGD(p, lr=0.05, weight_decay=0.1, maximize=True),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, dampening=0.3),
    "nesterov": lambda p: SGD(
        p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1
    ),
    "adam": lambda p: Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, lr=0.01, betas=(0.8, 0.9), weight_decay=0.3),
    "tensor rate": lambda p: AdamW(p, lr=torch.tensor(0.01, dtype=torch.float64)),
    "torch's fused": lambda p: Adam(p, lr=0.01, fused=True),
    "torch's foreach": lambda p: SGD(p, lr=0.01, momentum=0.5, foreach=True),
}
STATEFUL = ["momentum", "nesterov", "adam", "adamw"]


class Branches(nn.Module):
    """A model whose side branch takes part only when asked."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.entry = nn.Linear(4, 6)
        self.side = nn.Linear(6, 6)
        self.exit = nn.Linear(6, 3)

    def forward(self, inputs, side=True):
        hidden = self.entry(inputs).tanh()
        return self.exit(self.side(hidden).tanh() if side else hidden)


class Flat:
    """An optimizer whose steps are applied to flat buffers, without x̃."""

    def __init__(self, model, optimizer):
        groups = [group["params"] for group in optimizer.param_groups]
        self.model = FlatModel(model.named_parameters(), groups)
        self.fused = fuse(optimizer, self.model)
        assert self.fused is not None

    def step(self, zero_gradient=False):
        self.model.collect_gradients()
        updates = self.fused.updates(zero_gradient)
        for update in updates:
            x = self.model.buffers[update.buffer].values[update.start : update.stop]
            KERNELS.apply_gradient(
                x, None, update.gradient, update.state, 0.0, update.hyper
            )
        return updates


def learn(model, step, number, **options):
    """One step on the data of this number, from gradients that are None."""
    model.zero_grad()
    backward(model, number, **options)
    return step()


def backward(model, number, **options):
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(number))
    model(inputs.to(dtype), **options).square().mean().backward()


def pair(make, change=lambda model: model, groups=lambda model: model.parameters()):
    """The same model and optimizer twice: for torch, and for flat buffers."""
    both = []
    for _ in range(2):
        model = change(Branches())
        both.append((model, make(groups(model))))
    (plain, optimizer), (model, ours) = both
    return plain, optimizer, model, ours


def assert_same_models(model, plain):
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=lambda text, name=name: f"{name}: {text}",
                                   **TOLERANCE[p.dtype])  # fmt: skip


def assert_same_states(ours, theirs):
    one, other = ours.state_dict(), theirs.state_dict()
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for key, state in other["state"].items():
        assert one["state"][key].keys() == state.keys()
        for name, value in state.items():
            mine = one["state"][key][name]
            assert mine.stride() == value.stride()
            torch.testing.assert_close(mine, value, **TOLERANCE[value.dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_training_is_that_of_torch(name, dtype):
    plain, theirs, model, ours = pair(OPTIMIZERS[name], lambda m: m.to(dtype))
    flat = Flat(model, ours)
    for number in range(5):
        learn(plain, theirs.step, number)
        assert len(learn(model, flat.step, number)) == 1
    assert_same_models(model, plain)
    assert_same_states(ours, theirs)


class Master:
    """Torch's step on a float32 copy, rounded to the model's narrow type each time."""

    def __init__(self, model, make):
        self.narrow = list(model.parameters())
        self.wide = [p.detach().float().requires_grad_() for p in self.narrow]
        self.optimizer = make(self.wide)

    def step(self):
        for p, wide in zip(self.narrow, self.wide, strict=True):
            wide.grad = p.grad.float()
        self.optimizer.step()
        for p, wide in zip(self.narrow, self.wide, strict=True):
            p.data.copy_(wide.data)
            wide.data.copy_(p.data)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["sgd", *STATEFUL])
def test_narrow_parameters_train_in_single_precision(name, dtype):
    plain, model = Branches().to(dtype), Branches().to(dtype)
    master = Master(plain, OPTIMIZERS[name])
    flat = Flat(model, OPTIMIZERS[name](model.parameters()))
    for number in range(5):
        learn(plain, master.step, number)
        learn(model, flat.step, number)
        ulp = torch.finfo(dtype).eps
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=ulp, atol=ulp / 64)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_clearing_the_gradient_in_passing_changes_nothing_else(name):
    plain, theirs, model, ours = pair(OPTIMIZERS[name])
    flat = Flat(model, ours)
    for number in range(3):
        learn(plain, theirs.step, number)
        backward(model, number)
        flat.step(zero_gradient=True)
        assert not flat.model.buffers[0].gradient.any()
    assert_same_models(model, plain)


def two_groups(model):
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "lr": 0.02},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0},
    ]


@pytest.mark.parametrize("name", ["decay", "nesterov", "adamw"])
def test_groups_have_their_own_numbers(name):
    plain, theirs, model, ours = pair(OPTIMIZERS[name], groups=two_groups)
    flat = Flat(model, ours)
    for number in range(4):
        learn(plain, theirs.step, number)
        assert len(learn(model, flat.step, number)) == 2
    assert_same_models(model, plain)
    assert_same_states(ours, theirs)


def tie(model):
    model.side.weight = nn.Parameter(torch.randn(6, 6))
    model.exit = nn.Linear(6, 6)
    model.exit.weight = model.side.weight
    return model


def freeze(model):
    model.side.weight.requires_grad_(False)
    return model


def turn(model):
    model.side.weight = nn.Parameter(model.side.weight.detach().t())
    model.exit.weight = nn.Parameter(model.exit.weight.detach()[:, [0, 0, 1, 2, 3, 4]])
    return model


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("change", [tie, freeze, turn])
def test_tied_frozen_and_turned_parameters_train_as_in_torch(name, change):
    def same(model):
        torch.manual_seed(11)
        return change(model)

    plain, theirs, model, ours = pair(OPTIMIZERS[name], same)
    flat = Flat(model, ours)
    for number in range(4):
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert_same_models(model, plain)
    assert_same_states(ours, theirs)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        images = inputs.repeat(1, 27)[:, : 3 * 36].reshape(-1, 3, 6, 6)
        return self.head(self.conv(images).mean((2, 3)))


@pytest.mark.parametrize("name", STATEFUL)
def test_channels_last_trains_as_in_torch(name):
    plain, theirs, model, ours = pair(OPTIMIZERS[name], lambda _: Images())
    flat = Flat(model, ours)
    for number in range(4):
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert model.conv.weight.stride() == plain.conv.weight.stride()
    assert_same_models(model, plain)
    assert_same_states(ours, theirs)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("sides", ["ffttt", "ttftf", "fftft"])
def test_parameters_that_come_late_or_pause_have_steps_of_their_own(name, sides):
    plain, theirs, model, ours = pair(OPTIMIZERS[name])
    flat = Flat(model, ours)
    for number, side in enumerate(sides):
        learn(plain, theirs.step, number, side=side == "t")
        learn(model, flat.step, number, side=side == "t")
        assert_same_states(ours, theirs)
    assert_same_models(model, plain)


def test_latecomers_join_the_launch_as_soon_as_the_rule_allows():
    counts = {}
    for name in ("momentum", "adam"):
        _, _, model, ours = pair(OPTIMIZERS[name])
        flat = Flat(model, ours)
        counts[name] = [
            len(learn(model, flat.step, number, side=number > 1)) for number in range(5)
        ]
    assert counts == {"momentum": [2, 2, 3, 1, 1], "adam": [2, 2, 3, 3, 3]}


@pytest.mark.parametrize("name", STATEFUL)
def test_rate_schedulers_work_and_do_not_warn(name):
    plain, theirs, model, ours = pair(OPTIMIZERS[name])
    flat = Flat(model, ours)
    schedules = [lr_scheduler.StepLR(each, 2, 0.1) for each in (theirs, ours)]
    for number in range(5):
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
        for schedule in schedules:
            schedule.step()
    assert_same_models(model, plain)


def test_a_scheduler_made_before_fusing_works_too():
    model = Branches()
    optimizer = SGD(model.parameters(), lr=1.0)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    flat = Flat(model, optimizer)
    (before,) = learn(model, flat.step, 0)
    schedule.step()
    (after,) = learn(model, flat.step, 1)
    assert (before.hyper.lr, after.hyper.lr) == (1.0, 0.5)


def test_momentum_may_be_switched_on_and_off():
    plain, theirs, model, ours = pair(OPTIMIZERS["sgd"])
    flat = Flat(model, ours)
    for number, momentum in enumerate([0.0, 0.9, 0.9, 0.0, 0.5]):
        for each in (theirs, ours):
            each.param_groups[0]["momentum"] = momentum
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert_same_models(model, plain)
    assert_same_states(ours, theirs)


def stored(state):
    """The state after a trip through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("early", [True, False], ids=["before fusing", "after"])
def test_training_continues_from_a_stored_state(name, early):
    plain, theirs, first, ours = pair(OPTIMIZERS[name])
    flat = Flat(first, ours)
    for number in range(3):
        learn(plain, theirs.step, number)
        learn(first, flat.step, number)
    model = Branches()
    optimizer = OPTIMIZERS[name](model.parameters())
    flat = None if early else Flat(model, optimizer)
    if flat:
        learn(model, flat.step, 17)
    model.load_state_dict(stored(first.state_dict()))
    optimizer.load_state_dict(stored(ours.state_dict()))
    flat = flat or Flat(model, optimizer)
    for number in range(3, 6):
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert_same_models(model, plain)
    assert_same_states(optimizer, theirs)


@pytest.mark.parametrize("name", STATEFUL)
def test_states_are_exchanged_with_torch_in_both_directions(name):
    plain, theirs, model, ours = pair(OPTIMIZERS[name])
    flat = Flat(model, ours)
    for number in range(2):
        learn(plain, theirs.step, number)
    model.load_state_dict(plain.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for number in range(2, 4):
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert_same_models(model, plain)
    plain.load_state_dict(model.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    for number in range(4, 6):
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert_same_models(model, plain)


def renew(optimizer):
    optimizer.state = defaultdict(dict)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("forget", [renew, lambda optimizer: optimizer.state.clear()])
def test_a_state_that_is_thrown_away_starts_anew(name, forget):
    plain, theirs, model, ours = pair(OPTIMIZERS[name])
    flat = Flat(model, ours)
    for number in range(4):
        if number == 2:
            forget(theirs)
            forget(ours)
        learn(plain, theirs.step, number)
        learn(model, flat.step, number)
    assert_same_models(model, plain)
    assert_same_states(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", STATEFUL)
def test_narrow_parameters_have_a_single_precision_state_that_survives_a_file(
    name, dtype
):
    _, _, model, ours = pair(OPTIMIZERS[name], lambda m: m.to(dtype))
    flat = Flat(model, ours)
    (update,) = learn(model, flat.step, 0)
    assert {array.dtype for array in update.state} == {np.dtype(np.float32)}
    before = [array.copy() for array in update.state]
    state = stored(ours.state_dict())
    (update,) = learn(model, flat.step, 1)
    ours.load_state_dict(state)
    for array, expected in zip(update.state, before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_state_changed_by_someone_elses_hook_is_respected():
    model = Branches().to(torch.bfloat16)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    flat = Flat(model, optimizer)
    (update,) = learn(model, flat.step, 0)

    def zero(state):
        for each in state["state"].values():
            each["momentum_buffer"] = torch.zeros_like(each["momentum_buffer"])
        return state

    state = optimizer.state_dict()
    optimizer.register_load_state_dict_pre_hook(
        lambda _, state: zero(copy.deepcopy(state))
    )
    optimizer.load_state_dict(state)
    assert not update.state[0].any()


def test_state_views_show_the_buffers_and_plain_sgd_has_none():
    _, _, model, ours = pair(OPTIMIZERS["adam"])
    flat = Flat(model, ours)
    assert not ours.state
    (update,) = learn(model, flat.step, 0)
    update.state[1][:] = 5
    for p in model.parameters():
        assert (ours.state[p]["exp_avg_sq"] == 5).all()
        assert ours.state[p]["step"] == 1
    _, _, model, ours = pair(OPTIMIZERS["sgd"])
    (update,) = learn(model, Flat(model, ours).step, 0)
    assert update.state == ()
    assert not ours.state


def test_an_optimizer_can_still_be_copied():
    _, _, model, ours = pair(OPTIMIZERS["adam"])
    flat = Flat(model, ours)
    learn(model, flat.step, 0)
    twin_model, twin = copy.deepcopy((model, ours))
    learn(model, flat.step, 1)
    learn(twin_model, twin.step, 1)
    assert_same_models(twin_model, model)


def test_a_closed_optimizer_leaves_loaded_states_alone():
    _, _, model, ours = pair(OPTIMIZERS["adam"])
    flat = Flat(model, ours)
    (update,) = learn(model, flat.step, 0)
    state = copy.deepcopy(ours.state_dict())
    flat.fused.close()
    update.state[0][:] = 5
    ours.load_state_dict(state)
    assert (update.state[0] == 5).all()
    learn(model, ours.step, 1)  # torch goes on by itself


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*STATEFUL, "torch's fused", "torch's foreach"])
def test_after_the_end_torch_steps_narrow_parameters_by_itself(name, dtype):
    _, _, model, ours = pair(OPTIMIZERS[name], lambda m: m.to(dtype))
    flat = Flat(model, ours)
    learn(model, flat.step, 0)
    flat.fused.close()
    for parameter, state in ours.state.items():
        kept = [value for key, value in state.items() if key != "step"]
        assert {value.dtype for value in kept} == {parameter.dtype}
    learn(model, ours.step, 1)


class Odd(SGD):
    """May do anything in its step."""


def hooked(parameters):
    optimizer = SGD(parameters, lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


def wrapped(parameters):
    optimizer = SGD(parameters, lr=0.1)
    step = optimizer.step
    optimizer.step = lambda: step()
    return optimizer


FOREIGN = {
    "subclass": lambda p: Odd(p, lr=0.1, momentum=0.9),
    "amsgrad": lambda p: AdamW(p, lr=0.01, amsgrad=True),
    "capturable": lambda p: Adam(p, lr=0.01, capturable=True),
    "differentiable": lambda p: SGD(p, lr=0.1, differentiable=True),
    "hooked": hooked,
    "wrapped": wrapped,
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_only_exactly_known_optimizers_are_fused(name):
    model = Branches()
    optimizer = FOREIGN[name](model.parameters())
    groups = [group["params"] for group in optimizer.param_groups]
    assert fuse(optimizer, FlatModel(model.named_parameters(), groups)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["subclass", "amsgrad", "rmsprop", "nadam", "rprop"])
@pytest.mark.parametrize("accelerated", [True, False])
def test_a_foreign_step_is_torchs_own_and_moves_both_alike(name, dtype, accelerated):
    plain, theirs, model, ours = pair(FOREIGN[name], lambda m: m.to(dtype))
    flat = FlatModel(model.named_parameters(), [ours.param_groups[0]["params"]])
    generic = GenericOptimizer(ours, flat)
    (buffer,) = flat.buffers
    tilde = buffer.values + 0.25 if accelerated else None

    def step():
        flat.collect_gradients()
        generic.step([tilde])

    for number in range(4):
        learn(plain, theirs.step, number)
        learn(model, step, number)
    assert_same_models(model, plain)
    if accelerated:
        np.testing.assert_allclose(tilde - buffer.values, 0.25, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_foreign_step_of_narrow_parameters_keeps_the_difference_in_single(dtype):
    model = Branches().to(dtype)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    flat = FlatModel(model.named_parameters(), [optimizer.param_groups[0]["params"]])
    start = flat.values[0].float().numpy()
    # An offset that 16 bits could not hold beside x.
    tilde = start + np.float32(1e-5)
    learn(model, lambda: GenericOptimizer(optimizer, flat).step([tilde]), 0)
    moved = flat.values[0].float().numpy() - start
    assert moved.any()
    np.testing.assert_allclose(tilde - start - 1e-5, moved, atol=1e-6)


def test_a_foreign_step_moves_memory_that_two_parameters_share_once():
    model = nn.Module()
    model.one = nn.Parameter(torch.ones(3))
    model.other = nn.Parameter(model.one.data)
    optimizer = SGD(model.parameters(), lr=0.1)
    flat = FlatModel(model.named_parameters(), [[model.one, model.other]])
    (model.one.sum() + 2 * model.other.sum()).backward()
    flat.collect_gradients()
    GenericOptimizer(optimizer, flat).step([None])
    torch.testing.assert_close(model.one.data, torch.full((3,), 1 - 0.1 * 3))
    assert not flat.collect_gradients()


@pytest.mark.parametrize(
    ("make", "text"),
    [(torch.optim.LBFGS, "closure, got LBFGS"), (torch.optim.SparseAdam, "SparseAdam")],
)
def test_optimizers_that_need_more_than_a_gradient_are_refused(make, text):
    model = Branches()
    optimizer = make(list(model.parameters()))
    flat = FlatModel(model.named_parameters(), [list(model.parameters())])
    with pytest.raises(ConfigError, match=text):
        GenericOptimizer(optimizer, flat)


def test_a_step_that_replaces_the_data_is_noticed():
    model = Branches()

    class Replacing(SGD):
        def step(self):
            for p in model.parameters():
                p.data = p.data - 1

    optimizer = Replacing(model.parameters(), lr=1)
    flat = FlatModel(model.named_parameters(), [list(model.parameters())])
    with pytest.raises(ConfigError, match=r"entry\.weight"):
        GenericOptimizer(optimizer, flat).step([None])


@pytest.mark.parametrize("name", ["exp_avg", "step"])
def test_a_state_that_is_shared_with_another_process_is_noticed(name):
    model = Branches()
    optimizer = Adam(model.parameters())
    flat = Flat(model, optimizer)
    learn(model, flat.step, 0)
    optimizer.state[model.exit.bias][name].share_memory_()
    with pytest.raises(ConfigError, match="shared with another process"):
        learn(model, flat.step, 1)


@pytest.mark.parametrize("generic", [False, True])
def test_groups_added_later_are_refused(generic):
    model = Branches()
    optimizer = SGD(model.entry.parameters(), lr=0.1)
    flat = FlatModel(model.named_parameters(), [list(model.entry.parameters())])
    step = GenericOptimizer(optimizer, flat).step if generic else None
    fused = fuse(optimizer, flat)
    optimizer.add_param_group({"params": list(model.exit.parameters())})
    with pytest.raises(ConfigError, match=r"\[2\].*\[2, 2\]"):
        step([None]) if generic else fused.updates()


def test_step_hooks_added_later_are_refused():
    model = Branches()
    optimizer = SGD(model.parameters(), lr=0.1)
    flat = Flat(model, optimizer)
    learn(model, flat.step, 0)
    optimizer.register_step_post_hook(lambda *_: None)
    with pytest.raises(ConfigError, match="step hooks"):
        learn(model, flat.step, 1)
