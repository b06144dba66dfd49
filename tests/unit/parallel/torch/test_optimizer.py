"""What one rank sees of a wrapped optimizer: rules, errors, checkpoints."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

from acidmpi.compression.sparse import TopK
from acidmpi.errors import ConfigError, NonFiniteError
from acidmpi.parallel.torch import optimizer as module
from acidmpi.parallel.torch.optimizer import DistributedOptimizer
from acidmpi.tasks.lean import leave_out_compiler


@pytest.fixture(autouse=True, scope="module")
def lean():
    leave_out_compiler()


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def wrap(optimizer, named=None, **options):
    usual = {"comm": MPI.COMM_SELF, "deadline_seconds": 20.0}
    return DistributedOptimizer(optimizer, named, **usual | options)


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def opt(model):
    with wrap(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)) as opt:
        yield opt


def backward(model, factor=1.0):
    (model(torch.ones(2, 3)).sum() * factor).backward()


def test_it_is_the_optimizer_that_it_wraps():
    plain = torch.optim.Adam(model_of().parameters(), lr=0.3)
    with wrap(plain) as opt:
        assert isinstance(opt, torch.optim.Adam)
        assert isinstance(opt, DistributedOptimizer)
        assert "DistributedAdam" in repr(opt)
        assert opt.param_groups is plain.param_groups
        assert opt.state is plain.state
        assert opt.defaults is plain.defaults


def test_loaded_state_is_seen_by_whoever_holds_the_plain_optimizer(model):
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with wrap(plain) as opt:
        state = opt.state_dict()
        state["param_groups"][0]["lr"] = 0.7
        opt.load_state_dict(state)
        assert plain.param_groups[0]["lr"] == 0.7


def test_hooks_around_the_step_run_once_even_after_loading(model, opt):
    calls = []
    opt.register_step_pre_hook(lambda *_: calls.append("before"))
    opt.register_step_post_hook(lambda *_: calls.append("after"))
    opt.load_state_dict(opt.state_dict())
    backward(model)
    opt.step()
    assert calls == ["before", "after"]


def test_a_plain_checkpoint_can_be_loaded_and_the_other_way_round(model, opt):
    backward(model)
    opt.step()
    plain = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    plain.load_state_dict(opt.state_dict())
    assert plain.param_groups[0]["lr"] == 0.1
    opt.load_state_dict(plain.state_dict())
    assert len(opt.state) == 4


def test_a_checkpoint_of_another_model_is_refused(model, opt):
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    named = other.named_parameters()
    plain = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    with wrap(plain, named) as third:
        state = third.state_dict()
    with pytest.raises(ConfigError, match=r"in one of the two only: .*0\.bias"):
        opt.load_state_dict(state)


def test_a_checkpoint_of_another_version_is_refused(opt):
    state = opt.state_dict()
    state["acidmpi"]["schema"] = 99
    with pytest.raises(ConfigError, match="must have schema 1, got 99"):
        opt.load_state_dict(state)


def test_sections_are_divided_as_they_were_saved():
    def trained(steps_alone, start=None):
        model = model_of()
        compression = TopK(density=0.3)
        early, late = list(model[0].parameters()), list(model[2].parameters())
        plain = torch.optim.SGD(early, lr=0.1, momentum=0.9)
        if start is not None:
            plain.add_param_group({"params": late})
        with wrap(plain, model.named_parameters(), compression=compression) as opt:
            if start is not None:
                model.load_state_dict(start["model"])
                opt.load_state_dict(start["optimizer"])
            for step in range(4):
                if step == steps_alone and start is None:
                    opt.add_param_group({"params": late})
                opt.zero_grad()
                backward(model, step + 1.0)
                opt.step()
            return {
                "model": copy.deepcopy(model.state_dict()),
                "optimizer": copy.deepcopy(opt.state_dict()),
            }

    saved = trained(2)
    sections = saved["optimizer"]["acidmpi"]["sections"]
    assert [len(section["names"]) for section in sections] == [2, 2]
    assert [section["ranks"][0]["step"] for section in sections] == [4, 2]
    again = trained(0, saved)["optimizer"]["acidmpi"]["sections"]
    assert [section["ranks"][0]["step"] for section in again] == [8, 6]


def test_two_passes_in_one_step_are_an_error_that_names_the_cure(model):
    with pytest.raises(ConfigError, match=r"reached 'group0\.3'; .* no_sync\(\)"):
        two_passes(model)


def two_passes(model):
    with wrap(torch.optim.SGD(model.parameters(), lr=0.1)):
        backward(model)
        backward(model)


def test_a_no_sync_pass_adds_nothing_to_gradients_that_are_under_way(model):
    with pytest.raises(ConfigError, match=r"all passes but the last in no_sync\(\)"):
        a_pass_and_one_of_its_own(model)


def a_pass_and_one_of_its_own(model):
    with wrap(torch.optim.SGD(model.parameters(), lr=0.1)) as opt:
        backward(model)
        with opt.no_sync():
            backward(model)


@pytest.mark.parametrize("what", ["state_dict", "gather_state_dict", "close"])
def test_what_comes_in_the_middle_of_a_step_names_methods_that_there_are(model, what):
    opt = wrap(torch.optim.SGD(model.parameters(), lr=0.1))
    backward(model)
    with pytest.raises(ConfigError, match=r"two steps.*by step\(\) or synchronize"):
        getattr(opt, what)()
    if what != "close":
        opt.step()
    opt.close()


def test_passes_over_different_parameters_are_one_step():
    models = [model_of(0), model_of(1)]
    plain = torch.optim.SGD([p for m in models for p in m.parameters()], lr=0.1)
    with wrap(plain) as opt:
        for model in models:
            backward(model)
        opt.step()
    assert opt.param_groups[0]["params"][0].grad is not None


def test_zero_grad_before_the_mean_is_an_error(model, opt):
    backward(model)
    with pytest.raises(ConfigError, match=r"before zero_grad\(\); call step\(\)"):
        opt.zero_grad()
    opt.step()
    opt.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_zero_grad_in_place_keeps_the_place(model, opt):
    backward(model)
    opt.step()
    places = [p.grad.data_ptr() for p in model.parameters()]
    opt.zero_grad(set_to_none=False)
    assert not any(p.grad.any() for p in model.parameters())
    backward(model)
    opt.step()
    assert [p.grad.data_ptr() for p in model.parameters()] == places


def test_a_step_without_gradients_changes_nothing(model, opt):
    backward(model)
    opt.step()
    before = copy.deepcopy(model.state_dict())
    opt.zero_grad()
    opt.step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_gradients_left_by_no_sync_are_averaged_by_the_step(model, opt):
    with opt.no_sync():
        backward(model)
        backward(model)
    twice = model[2].bias.grad.clone()
    opt.step()
    assert torch.equal(model[2].bias.grad, twice)
    assert opt.statistics().steps == 1


def test_a_no_sync_pass_after_synchronize_is_averaged_by_the_step(model, opt):
    backward(model)
    opt.synchronize()
    twice = 2 * model[2].bias.grad
    with opt.no_sync():
        backward(model)
    opt.step()
    assert torch.equal(model[2].bias.grad, twice)
    assert opt.statistics().steps == 2


def test_a_pass_after_synchronize_begins_a_new_step(model, opt):
    backward(model)
    opt.synchronize()
    opt.synchronize()
    assert opt.statistics().steps == 1
    opt.zero_grad()
    backward(model)
    opt.step()
    assert opt.statistics().steps == 2


def test_skip_synchronize_needs_gradients_that_are_means(model, opt):
    backward(model)
    with opt.skip_synchronize(), pytest.raises(ConfigError, match="skip_synchronize"):
        opt.step()
    opt.synchronize()
    with opt.skip_synchronize():
        opt.step()
    assert opt.statistics().steps == 1


def test_a_closure_may_be_skipped_before_anything_changed(model):
    before = copy.deepcopy(model.state_dict())
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with wrap(plain, nonfinite="skip") as opt:

        def closure():
            opt.zero_grad()
            backward(model, float("inf"))
            return 1.0

        assert opt.step(closure) is None
        assert opt.skipped == 1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_closure_cannot_be_skipped_halfway(model):
    plain = torch.optim.LBFGS(model.parameters(), max_iter=5)
    evaluations = []
    with wrap(plain, nonfinite="skip") as opt:

        def closure():
            opt.zero_grad()
            evaluations.append(None)
            loss = model(torch.ones(2, 3)).square().sum()
            loss = loss * float("nan") if len(evaluations) == 3 else loss
            loss.backward()
            return loss

        with pytest.raises(NonFiniteError, match="evaluation 3 of the closure"):
            opt.step(closure)


def test_a_scaler_needs_skipping(model, opt):
    scaler = torch.amp.GradScaler("cpu")
    backward(model)
    with pytest.raises(ConfigError, match="use nonfinite='skip'"):
        opt.synchronize(scaler)
    opt.synchronize(torch.amp.GradScaler("cpu", enabled=False))
    opt.step()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_copied(opt, copied):
    with pytest.raises(
        ConfigError, match="cannot be pickled or copied; use its state_"
    ):
        copied(opt)


def test_a_model_can_be_copied_while_it_is_trained(model, opt):
    backward(model)
    opt.step()
    other = copy.deepcopy(model)
    backward(other)  # no hook of ours is called
    backward(other)
    assert opt.statistics().steps == 1


def test_wrapping_twice_is_an_error_until_closed(model):
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with wrap(plain) as opt:
        for held in (plain, opt):
            with pytest.raises(ConfigError, match="can be wrapped once"):
                wrap(held)
    with wrap(plain) as opt:
        backward(model)
        opt.step()
    backward(model)
    plain.step()


def test_a_closed_one_says_so(model):
    opt = wrap(torch.optim.SGD(model.parameters(), lr=0.1))
    opt.close()
    opt.close()
    backward(model)
    backward(model)
    for use in (opt.step, opt.synchronize, opt.zero_grad, opt.statistics):
        with pytest.raises(ConfigError, match="a closed optimizer averages nothing"):
            use()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonfinite": "ignore"}, "must be 'raise' or 'skip', got 'ignore'"),
        ({"compression": "powersgd"}, "must be an object like"),
        ({"compression": TopK}, "must be an object like"),
        ({"named": 3}, "pairs of a name and a tensor, got int"),
        ({"bucket_bytes": None}, "must be a whole number ≥ 0 .* got None"),
        ({"bucket_bytes": 1.5}, "must be a whole number ≥ 0 .* got 1"),
        ({"deadline_seconds": None}, "must be a positive number, got None"),
        ({"deadline_seconds": 0}, "must be a positive number, got 0"),
        ({"comm": None}, "must be an mpi4py intracommunicator, got None"),
        ({"progress": "magic"}, "must be 'thread' or 'inline', got 'magic'"),
    ],
)
def test_bad_options_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        wrap(torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_something_must_be_trained(model):
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="got none; unfreeze one"):
        wrap(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(
        ConfigError, match=r"must be a torch\.optim\.Optimizer, got list"
    ):
        wrap([])


def test_a_parameter_belongs_to_one_optimizer(model, opt):
    with pytest.raises(ConfigError, match="by one optimizer"):
        wrap(torch.optim.SGD(model.parameters(), lr=0.1))


def test_what_one_bad_gradient_leaves_is_finite(model):
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with wrap(plain, compression=TopK(density=0.5)) as opt:
        backward(model, float("nan"))
        with pytest.raises(NonFiniteError, match="rank 0 is not finite in step 1"):
            opt.step()
        [section] = opt.state_dict()["acidmpi"]["sections"]
        kept = section["ranks"][0]["reduction"]
        assert kept
        assert all(np.isfinite(np.asarray(array)).all() for array in kept.values())


@pytest.mark.parametrize("planted", [False, True])
def test_late_hand_over_is_what_keeps_a_skipped_step_out(model, monkeypatch, planted):
    if planted:
        monkeypatch.setattr(module, "FORGETFUL", ("topk",))
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with wrap(plain, compression=TopK(density=0.3), nonfinite="skip") as opt:
        backward(model)
        opt.step()
        opt.zero_grad()
        before = opt.state_dict()["acidmpi"]["sections"]
        backward(model, float("inf"))
        opt.step()
        assert opt.skipped == 1
        assert (str(opt.state_dict()["acidmpi"]["sections"]) == str(before)) != planted
