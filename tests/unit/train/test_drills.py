"""Faults to order where all ranks step together."""

import time
from types import SimpleNamespace

import pytest

from acidmpi.config.train import TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.faults import actions
from acidmpi.train.drills import order_faults


class Owner:
    def gradient(self, x):
        time.sleep(0.01)
        return 2 * x


def owner_with(fault, rank=1, method="allreduce"):
    owner = Owner()
    config = TrainConfig(method=method, fault=fault)
    order_faults(owner, "gradient", config, SimpleNamespace(rank=rank, size=2))
    return owner


@pytest.fixture
def pauses(monkeypatch):
    found = []
    monkeypatch.setattr(actions, "pause", found.append)
    return found


def test_a_slow_rank_computes_longer_and_does_not_count_what_it_waited(pauses):
    owner = owner_with("rank=1 at=gradient:1- do=slow:3")
    for _ in range(3):
        assert owner.gradient(2) == 4
        time.sleep(0.1)  # as if for others
    assert len(pauses) == 3
    assert all(0.02 <= seconds < 0.1 for seconds in pauses)


@pytest.mark.parametrize(
    ("fault", "rank"), [(None, 1), ("rank=1 at=gradient:1- do=slow:3", 0)]
)
def test_other_ranks_have_no_hooks(fault, rank):
    assert "gradient" not in vars(owner_with(fault, rank))


def test_a_fault_may_happen_once(pauses):
    owner = owner_with("rank=1 at=gradient:2 do=pause:0.5", method="localsgd")
    for _ in range(3):
        owner.gradient(1)
    assert pauses == [0.5]


@pytest.mark.parametrize(
    "fault", ["rank=1 at=exchange:5 do=kill", "rank=1 at=gradient:5 do=nan"]
)
def test_what_cannot_happen_here_is_refused(fault):
    with pytest.raises(
        ConfigError, match="--method allreduce takes faults at=gradient"
    ):
        owner_with(fault, rank=0)
