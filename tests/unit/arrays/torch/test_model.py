"""A flattened model is the same model, and its buffers are the same memory."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from acidmpi.arrays.torch import FlatModel
from acidmpi.arrays.torch import model as module
from acidmpi.arrays.torch.views import as_tensor
from acidmpi.errors import ConfigError

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def flatten(model, *groups):
    return FlatModel(model.named_parameters(), groups or [list(model.parameters())])


def network(dtype=torch.float32):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def backward(model, seed=0, scale=1.0):
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    (scale * model(inputs.to(dtype)).square().sum()).backward()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_buffers_and_parameters_are_the_same_memory(dtype):
    model = network(dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    parameters = list(model.parameters())
    flat = flatten(model)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    (buffer,) = flat.buffers
    assert buffer.values.size == sum(p.numel() for p in parameters)
    for name, value in before.items():
        assert torch.equal(as_tensor(buffer.named(name)), value)
        assert torch.equal(model.get_parameter(name), value)
    buffer.values[:] = 0
    assert all((p == 0).all() for p in parameters)
    backward(model)
    flat.collect_gradients()
    buffer.gradient[:] = 0
    assert all((p.grad == 0).all() for p in parameters)


def test_one_buffer_per_type_and_one_segment_per_group():
    model = network()
    model[2].double()
    biases, weights = [model[0].bias, model[2].bias], [model[2].weight, model[0].weight]
    flat = flatten(model, biases, weights)
    double, single = flat.buffers
    assert (double.values.dtype, single.values.dtype) == (np.float64, np.float32)
    segments = [run[:4] for run in flat.runs([True] * 4)]
    assert segments == [(0, 0, 0, 3), (0, 1, 3, 24), (1, 0, 0, 7), (1, 1, 7, 42)]
    assert list(double.views) == ["2.bias", "2.weight"]


def test_gradients_accumulate_in_the_buffer_as_in_torch():
    model, plain = network(), network()
    flat = flatten(model)
    for step in range(3):
        for each in (model, plain):
            backward(each, step)
        assert flat.collect_gradients() == (step == 0)
        views = [p.grad for p in model.parameters()]
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
    flat.zero_gradients()
    assert not flat.buffers[0].gradient.any()
    assert all(a is p.grad for a, p in zip(views, model.parameters(), strict=True))


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_that_are_thrown_away_each_step_are_adopted_each_step(create_graph):
    model, plain = network(), network()
    flat = flatten(model)
    for step in range(3):
        for each in (model, plain):
            each.zero_grad(set_to_none=True)
            outputs = each(torch.full((1, 5), 0.1 * (step + 1))).sum()
            grads = torch.autograd.grad(
                outputs, list(each.parameters()), create_graph=create_graph
            )
            for p, g in zip(each.parameters(), grads, strict=True):
                p.grad = g
        assert flat.collect_gradients() == (step == 0)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
            assert not p.grad.requires_grad
    assert flat.version == 1


def test_parameters_without_a_gradient_are_not_active():
    model = network()
    flat = flatten(model)
    assert not flat.collect_gradients()
    assert flat.active_segments == ()
    model[2].bias.sum().backward()
    assert flat.collect_gradients()
    assert [run[:4] for run in flat.active_segments] == [(0, 0, 63, 66)]
    backward(model)
    assert flat.collect_gradients()
    assert [run[:4] for run in flat.active_segments] == [(0, 0, 0, 66)]
    model[0].weight.grad = None
    assert flat.collect_gradients()
    assert [run[:4] for run in flat.active_segments] == [(0, 0, 35, 66)]


def test_sparse_gradients_become_dense():
    model = nn.Embedding(6, 2, sparse=True)
    flat = flatten(model)
    for _ in range(2):  # the second time autograd adds to a dense gradient
        model(torch.tensor([1, 4, 4])).sum().backward()
        flat.collect_gradients()
    assert not model.weight.grad.is_sparse
    expected = [[0, 0], [2, 2], [0, 0], [0, 0], [4, 4], [0, 0]]
    np.testing.assert_array_equal(flat.buffers[0].gradient.reshape(6, 2), expected)


class Twins(nn.Module):
    """Two parameters on the same elements, the second one turned or not."""

    def __init__(self, turned):
        super().__init__()
        self.first = nn.Parameter(torch.arange(6.0).reshape(2, 3))
        data = self.first.data
        self.second = nn.Parameter(data.t() if turned else data)
        self.other = nn.Parameter(torch.zeros(1))

    def forward(self):
        return 2 * self.first.sum() + self.second.square().sum()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_parameters_that_share_memory_share_a_place_where_gradients_add_up(
    turned, reset
):
    model = Twins(turned)
    flat = flatten(model)
    (buffer,) = flat.buffers
    assert buffer.values.size == 7
    for step in range(1, 4):
        if reset:
            model.zero_grad()
        model().backward()
        flat.collect_gradients()
        expected = (2 + 2 * np.arange(6.0)) * (1 if reset else step)
        np.testing.assert_array_equal(buffer.gradient[:6], expected)
    buffer.values[1] = 100
    assert model.first[0, 1] == 100
    assert (model.second[1, 0] if turned else model.second[0, 1]) == 100


def test_a_second_twin_that_wakes_up_later_adds_its_gradient():
    model = Twins(turned=True)
    flat = flatten(model)
    model.first.sum().backward()
    flat.collect_gradients()
    model.second.grad = torch.ones(3, 2)
    flat.collect_gradients()
    np.testing.assert_array_equal(flat.buffers[0].gradient[:6], np.full(6, 2.0))


def test_one_parameter_under_two_names_is_stored_once():
    model = nn.Module()
    model.a, model.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    model.b.weight = model.a.weight
    named = model.named_parameters(remove_duplicate=False)
    flat = FlatModel(named, [list(model.parameters())])
    (buffer,) = flat.buffers
    assert buffer.values.size == 9
    assert buffer.views["a.weight"] == buffer.views["b.weight"]
    flat.check_views(model.named_parameters())


def test_frozen_and_foreign_parameters_stay_outside_and_are_reported():
    model = network()
    model[0].bias.requires_grad_(False)
    flat = flatten(model, [model[0].weight, model[0].bias])
    assert list(flat.frozen) == ["0.bias"]
    assert list(flat.untrained) == ["2.weight", "2.bias"]
    assert list(flat.buffers[0].views) == ["0.weight"]
    backward(model)
    flat.collect_gradients()
    model[0].bias.requires_grad_()
    backward(model)
    with pytest.raises(ConfigError, match=r"'0\.bias'"):
        flat.collect_gradients()


def test_a_frozen_parameter_follows_the_trained_one_it_shares_memory_with():
    model = Twins(turned=False)
    model.second.requires_grad_(False)
    flat = flatten(model)
    assert not flat.frozen
    flat.buffers[0].values[:6] = 5
    assert (model.second == 5).all()


def layouts():
    torch.manual_seed(1)
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    turned, sliced = nn.Linear(4, 5), nn.Linear(4, 5)
    turned.weight = nn.Parameter(torch.randn(4, 5).t())
    sliced.weight = nn.Parameter(torch.randn(5, 8)[:, ::2])
    return nn.ModuleDict({"conv": conv, "turned": turned, "sliced": sliced})


def run_layouts(model):
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    hidden = model["conv"](images).mean((2, 3))
    (model["turned"](hidden) * model["sliced"](hidden)).sum().backward()


def test_dense_layouts_are_kept_and_the_results_too():
    model, plain = layouts(), layouts()
    flat = flatten(model)
    for name in ("conv", "turned"):
        assert model[name].weight.stride() == plain[name].weight.stride()
    assert model["sliced"].weight.is_contiguous()
    for _ in range(2):
        for each in (model, plain):
            run_layouts(each)
        flat.collect_gradients()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p, q)
            torch.testing.assert_close(p.grad, q.grad)
            assert p.grad.stride() == p.stride()
    for name, p in plain.named_parameters():
        np.testing.assert_array_equal(flat.buffers[0].named(name), p.detach().numpy())


def test_empty_and_scalar_parameters_have_their_place():
    model = nn.Module()
    model.empty = nn.Parameter(torch.zeros(0, 3))
    model.scalar = nn.Parameter(torch.tensor(2.0))
    flat = flatten(model)
    (model.empty.sum() + model.scalar).backward()
    flat.collect_gradients()
    assert flat.buffers[0].gradient.tolist() == [1.0]
    flat.check_views(model.named_parameters())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_gradient_is_found_and_named(dtype, bad):
    model = network(dtype)
    flat = flatten(model)
    backward(model)
    flat.collect_gradients()
    assert flat.gradients_finite()
    assert flat.first_nonfinite() is None
    model[2].weight.grad[1, 2] = bad
    assert not flat.gradients_finite()
    assert flat.first_nonfinite() == "2.weight"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_but_finite_gradients_are_finite(dtype):
    model = network(dtype)
    flat = flatten(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.finfo(dtype).max)
    flat.collect_gradients()
    assert flat.gradients_finite()


def test_gradients_of_parameters_that_have_none_do_not_count():
    model = network()
    flat = flatten(model)
    backward(model, scale=math.nan)
    flat.collect_gradients()
    model.zero_grad()
    model[2].bias.sum().backward()
    flat.collect_gradients()
    assert flat.gradients_finite()
    assert flat.gradient_norm() == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_and_scale_are_those_of_torch(dtype):
    model = network(dtype)
    flat = flatten(model)
    backward(model)
    flat.collect_gradients()
    wide = torch.cat([p.grad.double().flatten() for p in model.parameters()])
    assert flat.gradient_norm() == pytest.approx(wide.norm().item(), rel=1e-6)
    flat.scale_gradients(0.5)
    scaled = torch.cat([p.grad.double().flatten() for p in model.parameters()])
    torch.testing.assert_close(scaled, 0.5 * wide, rtol=1e-2, atol=1e-4)


def test_stored_and_copied_models_are_whole():
    model = network()
    flatten(model)
    expected = model(torch.ones(1, 5))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(torch.ones(1, 5)), expected)
        with torch.no_grad():
            twin[0].weight.zero_()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    fresh = network()
    with torch.no_grad():
        fresh[0].weight.zero_()
    file.seek(0)
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(torch.ones(1, 5)), expected)
    assert torch.equal(model(torch.ones(1, 5)), expected)


def test_loading_a_state_writes_into_the_buffers():
    model = network()
    flat = flatten(model)
    model.load_state_dict(
        {k: torch.ones_like(v) for k, v in model.state_dict().items()}
    )
    assert (flat.buffers[0].values == 1).all()
    flat.check_views(model.named_parameters())


def replace(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


@pytest.mark.parametrize(
    "leave",
    [
        lambda model: model.double(),
        lambda model: model[2].to(memory_format=torch.channels_last).half(),
        replace,
        lambda model: model.append(nn.Linear(3, 1)),
        lambda model: model.pop(2),
    ],
    ids=["cast", "cast one", "replaced", "added", "removed"],
)
def test_a_model_that_leaves_its_buffers_is_noticed(leave):
    model = network()
    flat = flatten(model)
    flat.check_views(model.named_parameters())
    leave(model)
    with pytest.raises(ConfigError, match=r"[023]\.(weight|bias)"):
        flat.check_views(model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_is_shared_with_another_process_is_noticed(dtype):
    # torch moves it and frees its memory, to which other threads go on to write.
    model = network().to(dtype)
    flat = flatten(model)
    flat.collect_gradients()
    before = flat.buffers[0].values.copy()
    model[2].share_memory()
    others = [torch.full((model[0].weight.numel(),), 7.0) for _ in range(100)]
    assert (flat.buffers[0].values == before).all()
    with pytest.raises(ConfigError, match="shared with another process"):
        flat.collect_gradients()
    assert len(others) == 100


def test_planted_fault_a_parameter_left_out_of_the_layout_is_noticed(monkeypatch):
    plan = module.lay_out

    def forgetful(named, groups):
        layout = plan(named, groups)
        return layout._replace(places=layout.places[:-1])

    monkeypatch.setattr(module, "lay_out", forgetful)
    with pytest.raises(ConfigError, match=r"2\.bias"):
        flatten(network())


def test_released_parameters_have_memory_of_their_own():
    model = Twins(turned=True)
    flat = flatten(model)
    expected = model.second.detach().clone()
    flat.release()
    flat.buffers[0].values[:] = 0
    assert torch.equal(model.second, expected)
    with torch.no_grad():
        model.first.zero_()
    assert not model.second.any()
    assert model.first.untyped_storage().nbytes() == 24


def test_signatures_agree_for_equal_models_only():
    def signature(change=lambda model: model, groups=lambda model: []):
        model = change(layouts())
        return flatten(model, *groups(model)).signature()

    def freeze(model):
        model["conv"].bias.requires_grad_(False)
        return model

    ours = signature()
    assert ours == signature()
    assert set(ours) == {name for name, _ in layouts().named_parameters()}
    assert ours != signature(lambda model: model.double())
    assert ours != signature(lambda m: m.to(memory_format=torch.contiguous_format))
    assert ours != signature(freeze)
    assert ours != signature(groups=lambda m: [list(m.parameters())[::-1]])
    others = signature(groups=lambda m: [[p] for p in m.parameters()])
    assert ours != others


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_can_be_written_into_another_model(dtype):
    model, other = network(dtype), network(dtype)
    flat = flatten(model)
    values = [buffer.values.copy() for buffer in flat.buffers]
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    flat.write_to(values, other.named_parameters())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(ConfigError, match=r"2\.weight"):
        flat.write_to(values, other[:1].named_parameters())


def overlapping():
    model = nn.Module()
    model.a = nn.Parameter(torch.zeros(6))
    model.b = nn.Parameter(model.a.data[2:])
    return model


def lazy():
    return nn.Sequential(nn.LazyLinear(3))


def complex_():
    return nn.Linear(2, 2, dtype=torch.complex64)


def frozen():
    return nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (overlapping, "overlap of 'a' and 'b'"),
        (lazy, "lazy '0.weight'"),
        (complex_, "complex64"),
        (frozen, "got none"),
        (lambda: nn.Linear(2, 2, device="meta"), "meta"),
    ],
    ids=["overlapping", "lazy", "complex", "frozen", "meta"],
)
def test_models_that_cannot_be_flattened_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        flatten(make())


def test_a_parameter_that_is_not_in_the_model_is_refused():
    model = network()
    stranger = nn.Parameter(torch.zeros(2, 9))
    with pytest.raises(
        ConfigError, match=r"parameter 4 of group 0 with shape \[2, 9\]"
    ):
        flatten(model, [*model.parameters(), stranger])


def test_twins_in_different_groups_are_refused():
    model = Twins(turned=False)
    with pytest.raises(ConfigError, match="first and second"):
        flatten(model, [model.first, model.other], [model.second])


def test_neighbours_in_one_storage_do_not_overlap():
    store = torch.arange(6.0)
    model = nn.Module()
    model.a, model.b = nn.Parameter(store[:3]), nn.Parameter(store[3:])
    assert flatten(model).buffers[0].values.tolist() == list(range(6))
