"""The loop: follows the course, evaluates averages, obeys signals."""

from types import SimpleNamespace

import pytest

from acidmpi.clocks import ManualClock
from acidmpi.train.display import Silence
from acidmpi.train.loop import Loop
from acidmpi.train.plan import Plan, Recipe


class FakeCourse:
    """Counts to a goal."""

    def __init__(self, goal):
        self.goal, self.done, self.stopped, self.entered = goal, 0, None, []
        self.averages = {}
        self.evaluations = []

    def __enter__(self):
        self.entered.append(True)
        return self

    def __exit__(self, *error):
        self.entered.append(error[0])

    @property
    def finished(self):
        return self.done >= self.goal or self.stopped is not None

    @property
    def progress(self):
        return self.done / self.goal

    def stop(self):
        self.stopped = "interrupted"

    def record(self, scores):
        self.evaluations.append(scores)

    def take_average(self):
        return self.averages.pop(self.done, None)

    def statistics(self):
        return SimpleNamespace(
            total_gradients=self.done,
            train_loss=0.5,
            comm_rate_measured=1.0,
            consensus_distance=0.0,
        )


class FakeTrainer:
    def __init__(self, goal):
        self.course = FakeCourse(goal)
        self.rates = []

    def step(self, rate):
        self.rates.append(rate)
        self.course.done += 1
        return 0.5

    def scores_of(self, average):
        return float(average[0]), 0.5


class Record:
    """A display that keeps everything."""

    def __init__(self):
        self.moments, self.lines = [], []

    def due(self):
        return True

    def moment(self, moment):
        self.moments.append(moment)

    def line(self, text):
        self.lines.append(text)


RECIPE = Recipe(batch_size=1, lr=0.1, momentum=0.0, weight_decay=0.0, epochs=1.0)


class FakeWatch:
    """A signal comes when gradient number `at` has been made."""

    def __init__(self, trainer=None, at=None):
        self.trainer, self.at, self.action = trainer, at, None

    @property
    def requested(self):
        if self.trainer is None or self.trainer.course.done < self.at:
            return False
        self.action()
        return True

    def then(self, action):
        assert self.trainer is None or self.trainer.course.entered == [True]
        self.action = action


def make_loop(trainer, display=None, watch=None):
    plan = Plan(
        recipe=RECIPE,
        total_gradients=trainer.course.goal,
        average_every=None,
        rate=lambda progress: 1.0 - progress,
    )
    watch = watch or FakeWatch()
    return Loop(trainer, plan, watch, display or Silence(), ManualClock())


def test_it_runs_until_the_course_has_finished_inside_its_block():
    trainer = FakeTrainer(4)
    make_loop(trainer).run()
    assert trainer.course.done == 4
    assert trainer.course.entered == [True, None]


def test_the_rate_follows_the_global_progress():
    trainer = FakeTrainer(4)
    make_loop(trainer).run()
    assert trainer.rates == [1.0, 0.75, 0.5, 0.25]


def test_an_average_is_evaluated_recorded_and_shown():
    trainer, display = FakeTrainer(4), Record()
    trainer.course.averages = {2: (2, ["arrays"])}
    loop = make_loop(trainer, display)
    loop.run()
    assert loop.scores == (2.0, 0.5)
    assert trainer.course.evaluations == [(2.0, 0.5)]
    assert display.lines == [" 50% average: test loss 2  accuracy 50.00%"]
    assert [moment.gradients for moment in display.moments] == [1, 2, 3, 4]


def test_the_training_loss_is_a_recent_mean_of_what_is_finite():
    trainer = FakeTrainer(250)
    losses = dict.fromkeys(range(1, 140), 1.0) | {200: float("nan")}
    make, count = trainer.step, iter(range(1, 10**6))

    def step(rate):
        make(rate)
        return losses.get(next(count), 0.5)

    trainer.step = step
    loop = make_loop(trainer)
    assert loop.train_loss is None
    loop.run()
    assert loop.train_loss == 0.5


def test_a_signal_stops_all_ranks_and_nothing_more_is_evaluated():
    trainer = FakeTrainer(100)
    trainer.course.averages = {3: (3, [])}
    loop = make_loop(trainer, watch=FakeWatch(trainer, at=3))
    loop.run()
    assert trainer.course.stopped == "interrupted"
    assert trainer.course.done == 3
    assert loop.scores is None


def test_an_error_of_the_computation_passes_through_the_courses_block():
    trainer = FakeTrainer(4)
    trainer.step = lambda rate: 1 / 0
    with pytest.raises(ZeroDivisionError):
        make_loop(trainer).run()
    assert trainer.course.entered == [True, ZeroDivisionError]
