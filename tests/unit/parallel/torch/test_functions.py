"""Single operations with one rank: what is refused, and what comes out unchanged."""

import pytest
import torch
from mpi4py import MPI
from torch import nn

from acidmpi.errors import ConfigError
from acidmpi.parallel.statistics import ParallelStatistics
from acidmpi.parallel.torch import functions
from acidmpi.parallel.torch.functions import (
    allreduce,
    broadcast_object,
    broadcast_optimizer_state,
    broadcast_parameters,
)
from acidmpi.parallel.torch.optimizer import together

COMM = MPI.COMM_SELF


def test_a_root_must_be_a_rank():
    model = nn.Linear(2, 2)
    for root in (-1, 1):
        with pytest.raises(ConfigError, match=rf"0 to 0, got {root}"):
            broadcast_parameters(model.state_dict(), COMM, root)
        with pytest.raises(ConfigError, match=rf"0 to 0, got {root}"):
            broadcast_object(1, COMM, root)


def test_only_tensors_are_broadcast():
    with pytest.raises(
        ConfigError,
        match="'extra' must be a tensor on the CPU or a CUDA device, got int",
    ):
        broadcast_parameters({"extra": 3}, COMM)
    with pytest.raises(ConfigError, match="got meta"):
        broadcast_parameters({"x": torch.zeros(2, device="meta")}, COMM)


@pytest.mark.parametrize("most", [1 << 30, 8])
def test_long_messages_are_cut(monkeypatch, most):
    monkeypatch.setattr(functions, "MOST_BYTES", most)
    values = torch.arange(7, dtype=torch.float64)
    assert torch.equal(allreduce(values, COMM, "sum"), values)
    broadcast_parameters({"values": values}, COMM)
    assert torch.equal(values, torch.arange(7.0).double())
    assert broadcast_object("a text of some length", COMM) == "a text of some length"


def test_allreduce_leaves_its_argument_alone():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = allreduce(values, COMM)
    mean += 1
    assert values.tolist() == [1.0, 2.0]
    assert not mean.requires_grad


def test_allreduce_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="'mean' or 'sum', got 'max'"):
        allreduce(torch.zeros(1), COMM, "max")
    with pytest.raises(ConfigError, match=r"got torch\.int64; use op='sum'"):
        allreduce(torch.zeros(1, dtype=torch.int64), COMM)


def test_sizes_and_types_of_all_kinds():
    state = {
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "truth": torch.tensor([True, False]),
        "narrow": torch.tensor([1.5], dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j]),
    }
    broadcast_parameters(state, COMM)
    assert state["truth"].tolist() == [True, False]


def test_a_failed_load_says_what_is_different(monkeypatch):
    one = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    two = torch.optim.SGD([{"params": list(nn.Linear(2, 2).parameters())[:1]}], lr=0.1)
    monkeypatch.setattr(functions, "_broadcast_made", lambda *_: one.state_dict())

    class Other:
        rank, size = 1, 2

    with pytest.raises(ConfigError, match="got another one from rank 0"):
        broadcast_optimizer_state(two, Other())


def test_statistics_of_several_averagers():
    parts = [ParallelStatistics(3, 2, 6, 100, 0.5, 0.25)]
    parts += [ParallelStatistics(1, 1, 1, 10, 0.5, 0.25)]
    assert together(parts) == ParallelStatistics(3, 3, 7, 110, 1.0, 0.5)


@pytest.mark.parametrize(
    "params", [[torch.ones(2, 2)], [("a", torch.ones(1), 2)], 3, nn.Linear(2, 2), "ab"]
)
def test_what_has_no_names_is_not_broadcast(params):
    """A matrix of two rows is no pair of a name and a tensor."""
    with pytest.raises(ConfigError, match=r"pairs of a name.*model\.state_dict"):
        broadcast_parameters(params, COMM)


def test_one_element_has_any_stride():
    mine = torch.arange(6.0).reshape(3, 2)[1:2, 1]
    broadcast_parameters({"mine": mine}, COMM)
    assert mine.tolist() == [3.0]


def test_conjugates_are_broadcast():
    twisted = torch.tensor([1 + 2j, 3j])
    mine = {"conj": twisted.conj(), "imag": twisted.conj().imag}
    broadcast_parameters(mine, COMM)
    assert mine["conj"].tolist() == [1 - 2j, -3j]
    assert mine["imag"].tolist() == [-2, -3]
