"""The plan: open values come from the task, the work and the rates from the recipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.config.options import options_of
from acidmpi.config.train import TOPOLOGIES, TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.tasks.registry import DEFAULT_TASK, TASK_NAMES, task_defaults
from acidmpi.train.plan import make_plan, resolve
from acidmpi.worker.options import WorkerOptions


def resolved(**options):
    config = TrainConfig(**options)
    return resolve(config, task_defaults(config.task))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_open_values_become_the_tasks_own(task):
    config, defaults = resolved(task=task), task_defaults(task)
    for name in ("model", "batch_size", "lr", "momentum", "weight_decay", "epochs"):
        assert getattr(config, name) == getattr(defaults, name)


def test_given_values_stay():
    config = resolved(lr=0.5, momentum=0.0, epochs=2.5, model="cnn", weight_decay=0.0)
    assert (config.lr, config.momentum, config.epochs) == (0.5, 0.0, 2.5)
    assert (config.model, config.weight_decay) == ("cnn", 0.0)


def test_resolving_twice_changes_nothing():
    once = resolved()
    assert resolve(once, task_defaults(once.task)) == once


def test_the_choices_are_those_of_the_registry():
    (task,) = (o for o in options_of(TrainConfig) if o.name == "task")
    assert task.choices == TASK_NAMES
    assert task.default == DEFAULT_TASK


@pytest.mark.parametrize(
    "name", ["topology", "comm_rate", "method", "pairing", "progress", "max_lag"]
)
def test_the_defaults_are_those_of_the_worker(name):
    config = resolve(TrainConfig(), task_defaults("digits"))
    assert getattr(config, name) == getattr(WorkerOptions(), name)


def test_a_graph_belongs_to_the_methods_that_have_one():
    for method, name in (*TOPOLOGIES.items(), ("allreduce", None), ("localsgd", None)):
        config = resolve(TrainConfig(method=method), task_defaults("digits"))
        assert config.topology == name
    given = TrainConfig(method="gossip", topology="star")
    assert resolve(given, task_defaults("digits")).topology == "star"


def test_the_work_is_counted_over_all_ranks():
    config = resolved(epochs=10, batch_size=32)
    for size in (1, 4, 64):
        assert make_plan(config, 320, size).total_gradients == 100


@pytest.mark.parametrize(
    ("every", "gradients"), [(None, None), (1.0, 10), (0.25, 3), (1e-9, 1)]
)
def test_evaluations_are_spaced_in_epochs(every, gradients):
    config = resolved(batch_size=32, evaluate_every=every)
    assert make_plan(config, 320, 1).average_every == gradients


@given(st.integers(1, 256), st.floats(11, 300), st.floats(1e-4, 1.0))
def test_the_rate_rises_to_the_scaled_one_and_falls_twice(size, epochs, lr):
    config = resolved(batch_size=128, epochs=epochs, lr=lr)
    rate = make_plan(config, 1000, size).rate
    peak = lr * max(1.0, 128 * size / 256)
    assert rate(0.0) == pytest.approx(lr)
    assert rate(0.499999) == pytest.approx(peak)
    assert rate(0.6) == pytest.approx(peak / 10)
    assert rate(1.0) == pytest.approx(peak / 100)


def test_a_total_beyond_counting_is_refused():
    with pytest.raises(ConfigError, match=r"--epochs.*2\*\*53"):
        make_plan(resolved(epochs=1e18), 1000, 1)
