"""Which trainer a method and a task get."""

from types import SimpleNamespace

import pytest

from acidmpi.config.options import options_of
from acidmpi.config.train import TrainConfig
from acidmpi.train.bases import Setting
from acidmpi.train.trainers import make_trainer

EXPECTED = {
    ("a2cid2", True): "asynchronous.NetworkTrainer",
    ("async", True): "asynchronous.NetworkTrainer",
    ("adpsgd", True): "asynchronous.NetworkTrainer",
    ("allreduce", True): "synchronous_networks.AllReduce",
    ("localsgd", True): "synchronous_networks.OwnSteps",
    ("gossip", True): "synchronous_networks.OwnSteps",
    ("a2cid2", False): "asynchronous.VectorTrainer",
    ("async", False): "asynchronous.VectorTrainer",
    ("adpsgd", False): "asynchronous.VectorTrainer",
    ("allreduce", False): "synchronous_vectors.AllReduce",
    ("localsgd", False): "synchronous_vectors.OwnSteps",
    ("gossip", False): "synchronous_vectors.OwnSteps",
}


def test_every_method_is_here():
    (method,) = (o for o in options_of(TrainConfig) if o.name == "method")
    assert {method for method, _ in EXPECTED} == set(method.choices)


@pytest.mark.parametrize(("method", "uses_torch"), EXPECTED)
def test_the_method_and_the_task_choose_the_trainer(monkeypatch, method, uses_torch):
    name = f"acidmpi.train.{EXPECTED[method, uses_torch]}"
    monkeypatch.setattr(name, lambda given: given)
    task = SimpleNamespace(defaults=SimpleNamespace(uses_torch=uses_torch))
    config = TrainConfig(method=method)
    made = make_trainer(task, "comm", config, "plan", "metrics", "kept")
    assert made == Setting(task, "comm", config, "plan", "metrics", "kept")
