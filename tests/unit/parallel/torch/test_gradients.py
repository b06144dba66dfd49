"""Gradients move into flat buffers that lie as a backward pass comes along."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.apart import Apart, pretend
from torch import nn

from acidmpi.errors import ConfigError
from acidmpi.parallel.torch import gradients
from acidmpi.parallel.torch.gradients import GradientBuffers

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def make(shape, dtype=torch.float32, axes=None):
    value = torch.arange(float(np.prod(shape))).reshape(shape).to(dtype)
    if axes is not None:
        value = value.permute(axes)
    return nn.Parameter(value)


def buffers(*parameters):
    return GradientBuffers([f"p{k}" for k in range(len(parameters))], parameters)


@st.composite
def layouts(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    axes = draw(st.permutations(range(len(shape))))
    return make(tuple(shape), draw(st.sampled_from(DTYPES)), tuple(axes))


@given(st.lists(layouts(), min_size=1, max_size=5))
def test_a_gradient_is_the_same_in_its_place(parameters):
    held = buffers(*parameters)
    for k, p in enumerate(parameters):
        gradient = torch.randn(p.shape).to(p.dtype)
        p.grad = gradient.clone()
        assert held.adopt(k)
        assert torch.equal(p.grad, gradient)
        assert p.grad.stride() == p.stride()
        # What a compressor sees as rows and columns are the parameter's own.
        array = torch.from_numpy(
            held.arrays[k].view(np.int16 if p.itemsize == 2 else held.arrays[k].dtype)
        )
        ordered = array.reshape(held.specs[k].shape)
        order = sorted(range(p.ndim), key=lambda axis: -p.stride(axis))
        theirs = gradient.permute(order)
        if p.itemsize == 2:
            theirs = theirs.contiguous().view(torch.int16)
        assert torch.equal(ordered, theirs)


@given(st.lists(layouts(), min_size=1, max_size=6))
def test_neighbours_in_reverse_order_are_neighbours_in_memory(parameters):
    held = buffers(*parameters)
    for dtype in DTYPES:
        arrays = [
            a for a, p in zip(held.arrays, parameters, strict=True) if p.dtype is dtype
        ][::-1]
        for one, other in pairwise(arrays):
            assert other.ctypes.data == one.ctypes.data + one.nbytes
    assert all(array.flags.c_contiguous for array in held.arrays)


def test_a_parameter_that_was_cast_is_told_by_name():
    first, other = make((2, 2)), make((3,))
    held = buffers(first, other)
    other.data = other.data.double()
    other.grad = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"'p1' was moved or cast; call model\.to"):
        held.adopt(1)
    first.grad = torch.ones(2, 2)
    assert held.adopt(0)


def test_nothing_is_copied_twice():
    p = make((3,))
    held = buffers(p)
    p.grad = torch.ones(3)
    held.adopt(0)
    place = p.grad
    (2 * p).sum().backward()
    assert p.grad is place
    assert held.adopt(0)
    assert held.arrays[0].tolist() == [3.0, 3.0, 3.0]


def test_a_missing_gradient_stays_missing():
    p = make((3,))
    held = buffers(p)
    assert not held.adopt(0)
    assert p.grad is None
    held.fill(0, 2.0)
    assert p.grad is None
    held.show(0)
    assert p.grad.tolist() == [2.0, 2.0, 2.0]


def test_rows_apart_get_a_dense_place():
    p = nn.Parameter(torch.zeros(4, 6)[:, ::2])
    p.grad = torch.ones(4, 3)
    held = buffers(p)
    assert held.adopt(0)
    assert held.specs[0].shape == (4, 3)
    assert held.arrays[0].tolist() == [1.0] * 12


def twice(model, held):
    for _ in range(2):
        model.weight.grad = None
        model(torch.tensor([1, 1])).sum().backward()
        assert held.adopt(0)


def test_a_sparse_gradient_is_made_dense_with_one_warning():
    model = nn.Embedding(3, 2, sparse=True)
    held = buffers(model.weight)
    with pytest.warns(UserWarning, match="averaged as a dense one") as warned:
        twice(model, held)
    assert len(warned) == 1
    assert held.arrays[0].tolist() == [0.0, 0.0, 2.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_found(bad):
    p = make((5,), torch.float16)
    held = buffers(p)
    held.fill(0, 60000.0)
    held.clean(0)
    assert held.first_bad() is None  # although the sum is not finite
    p.grad = torch.zeros(5, dtype=torch.float16)
    p.grad[3] = bad
    held.adopt(0)
    held.clean(0)
    assert held.first_bad() == 0
    assert p.grad.tolist() == [0] * 5
    held.begin()
    assert held.first_bad() is None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_first_place_that_was_looked_at_counts(monkeypatch, elsewhere):
    if elsewhere:
        pretend(monkeypatch, Apart())
    held = buffers(*[make((3,)) for _ in range(5)])
    for index in (4, 2, 0):
        held.fill(index, float("nan") if index < 4 else 1.0)
        held.clean(index)
    assert held.first_bad() == 2
    assert [float(array[1]) for array in held.arrays] == [0, 0, 0, 0, 1]


def test_a_device_is_not_waited_for_before_the_end(monkeypatch):
    pretend(monkeypatch, Apart())
    held = buffers(make((3,)))

    def asked(*_):
        raise AssertionError("the host has asked for a value")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__bool__", asked)
        patch.setattr(torch.Tensor, "item", asked)
        patch.setattr(torch.Tensor, "__float__", asked)
        held.clean(0)
    assert held.first_bad() is None


def test_all_parameters_are_on_one_device(monkeypatch):
    one, other = make((2,)), make((2,))
    device = torch.device("cuda:1")
    monkeypatch.setattr(gradients, "_check", lambda name, p: setattr(p, "where", name))
    monkeypatch.setattr(
        nn.Parameter,
        "device",
        property(lambda p: device if p.where == "p1" else torch.device("cpu")),
        raising=False,
    )
    with pytest.raises(ConfigError, match="'p0' on cpu and 'p1' on cuda:1"):
        buffers(one, other)


@pytest.mark.parametrize(
    "bad",
    [
        nn.Parameter(torch.zeros(2, dtype=torch.complex64)),
        nn.Parameter(torch.zeros(2, device="meta")),
        nn.LazyLinear(2).weight,
    ],
)
def test_other_parameters_are_refused(bad):
    with pytest.raises(ConfigError, match="'p0'"):
        buffers(bad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("look", [GradientBuffers.adopt, GradientBuffers.show])
def test_gradients_that_are_shared_with_another_process_are_noticed(dtype, look):
    # torch moves them and frees their memory, to which an averager goes on to write.
    parameter = make((300, 100), dtype)
    held = buffers(parameter)
    parameter.grad = torch.ones_like(parameter)
    assert held.adopt(0)
    before = held.arrays[0].copy()
    nn.ParameterList([parameter]).share_memory()
    others = [torch.full((30000,), 7.0) for _ in range(100)]
    assert (held.arrays[0] == before).all()
    with pytest.raises(ConfigError, match=r"gradients .* shared with another process"):
        look(held, 0)
    assert len(others) == 100
