"""Trainers: momentum SGD on a vector as the recipe says, NaN raised or left out."""

from dataclasses import fields
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from acidmpi.config.train import TrainConfig
from acidmpi.errors import NonFiniteError
from acidmpi.faults.drill import Drill
from acidmpi.faults.plan import Plan
from acidmpi.tasks.registry import load_task, task_defaults
from acidmpi.train import asynchronous
from acidmpi.train.asynchronous import VectorTrainer, worker_options
from acidmpi.train.bases import Setting
from acidmpi.train.course import Figures
from acidmpi.train.plan import make_plan, resolve
from acidmpi.worker.options import WorkerOptions


class FakeGossip:
    def __init__(self, x, **options):
        self.x, self.options, self.applied = x, options, []
        drill = Drill(Plan.of(options["fault"]), 0, 1)
        self.engine = SimpleNamespace(drill=drill, next_gradient=lambda: 1)

    def apply(self, update, loss=None, samples=0, lr=0.0):
        self.x += update
        self.applied.append((update.copy(), loss, lr))


class Bowl:
    """f(x) = |x|²/2 without noise; may return NaN."""

    generator = None
    defaults = task_defaults("quadratic")
    broken = False

    def initial(self):
        return np.array([3.0, 4.0], np.float32)

    def gradient(self, x, generator):
        return np.full_like(x, np.nan) if self.broken else x.copy()

    def loss(self, x):
        return 0.5 * float(x @ x)

    def evaluate(self, x):
        return self.loss(x), None


def trainer_for(task, monkeypatch, **options):
    monkeypatch.setattr(asynchronous, "Gossip", FakeGossip)
    config = resolve(TrainConfig(task="quadratic", **options), task.defaults)
    plan = make_plan(config, 1000, 4)
    return VectorTrainer(Setting(task, "comm", config, plan, "metrics"))


def test_it_is_sgd_with_momentum_and_weight_decay(monkeypatch):
    trainer = trainer_for(Bowl(), monkeypatch, momentum=0.5, weight_decay=0.25)
    x, momentum = np.array([3.0, 4.0]), np.zeros(2)
    for rate in (0.1, 0.2, 0.05):
        loss = trainer.step(rate)
        assert loss == pytest.approx(0.5 * x @ x)
        momentum = 0.5 * momentum + x + 0.25 * x
        x = x - rate * momentum
        np.testing.assert_allclose(trainer._worker.x, x, rtol=1e-6)
        update, told, lr = trainer._worker.applied[-1]
        assert (told, lr) == (loss, rate)
        assert update.dtype == np.float32


def test_clipping_bounds_the_gradient(monkeypatch):
    trainer = trainer_for(Bowl(), monkeypatch, momentum=0.0, clip=1.0)
    trainer.step(1.0)
    assert np.linalg.norm(trainer._worker.applied[0][0]) == pytest.approx(1.0)
    free = trainer_for(Bowl(), monkeypatch, momentum=0.0, clip=100.0)
    free.step(1.0)
    assert np.linalg.norm(free._worker.applied[0][0]) == pytest.approx(5.0)


def test_nan_is_an_error_that_names_the_cure(monkeypatch):
    task = Bowl()
    trainer = trainer_for(task, monkeypatch)
    task.broken = True
    with pytest.raises(NonFiniteError, match="--nonfinite skip"):
        trainer.step(0.1)
    assert trainer._worker.applied == []


def test_nan_is_left_out_but_counted(monkeypatch):
    task = Bowl()
    trainer = trainer_for(task, monkeypatch, nonfinite="skip", momentum=0.0)
    task.broken = True
    trainer.step(0.1)
    assert np.array_equal(trainer._worker.x, [3.0, 4.0])
    task.broken = False
    trainer.step(0.1)
    np.testing.assert_allclose(trainer._worker.x, [2.7, 3.6], rtol=1e-6)
    assert len(trainer._worker.applied) == 2


def test_an_average_is_evaluated_beside_the_parameters(monkeypatch):
    trainer = trainer_for(Bowl(), monkeypatch)
    assert trainer.scores_of((7, [np.array([1.0, 1.0])])) == (1.0, None)
    assert trainer.scores() == (12.5, None)


@pytest.mark.parametrize(("method", "safety"), [("a2cid2", 0.5), ("async", 0.8)])
def test_every_option_of_communication_reaches_the_worker(method, safety):
    config = TrainConfig(
        task="quadratic",
        topology="star",
        comm_rate=2.0,
        method=method,
        pairing="fifo",
        progress="inline",
        max_lag=None,
        safety=safety,
        seed=3,
        deadline_seconds=9.0,
        evaluate_every=1.0,
    )
    config = resolve(config, task_defaults("quadratic"))
    chosen = WorkerOptions(**worker_options(config, make_plan(config, 1000, 4)))
    assert (chosen.topology, chosen.comm_rate, chosen.method) == ("star", 2.0, method)
    assert (chosen.pairing, chosen.progress, chosen.max_lag) == ("fifo", "inline", None)
    assert (chosen.safety, chosen.seed, chosen.deadline_seconds) == (safety, 3, 9.0)
    assert (chosen.total_gradients, chosen.average_every) == (20_000, 1000)


def test_the_quadratic_gets_better(monkeypatch):
    task = load_task("quadratic")
    trainer = trainer_for(task, monkeypatch)
    before = trainer.scores()[0]
    for _ in range(200):
        trainer.step(0.02)
    assert trainer.scores()[0] < 0.1 * before


def test_the_course_passes_on_what_the_worker_tells(monkeypatch):
    trainer = trainer_for(Bowl(), monkeypatch)
    worker, course = trainer._worker, trainer.course
    told = {field.name: number for number, field in enumerate(fields(Figures))}
    worker.statistics = lambda: SimpleNamespace(**told, repeated_pairs=0.5)
    assert course.statistics() == Figures(**told)
    for clean, known in product((True, False), repeat=2):
        worker.clean, worker.engine = clean, SimpleNamespace(told=known)
        assert (course.clean, course.told) == (clean, clean and known)
    errors = []
    worker.close = errors.append
    with course:
        pass
    with pytest.raises(ZeroDivisionError), course:
        raise ZeroDivisionError
    assert [type(error) for error in errors] == [type(None), ZeroDivisionError]
