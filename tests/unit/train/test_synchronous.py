"""All ranks in step: counted together, stopped together, averaged at the end."""

from types import SimpleNamespace

import numpy as np
import pytest

from acidmpi.arrays import bfloat16
from acidmpi.clocks import ManualClock
from acidmpi.errors import DeadlineExceeded, NonFiniteError, RemoteError
from acidmpi.telemetry.sketch import CELLS
from acidmpi.train.complaints import Complaint
from acidmpi.train.plan import Plan, Recipe
from acidmpi.train.synchronous import SynchronousCourse

RECIPE = Recipe(batch_size=1, lr=0.1, momentum=0.0, weight_decay=0.0, epochs=1.0)
SIZE = 4
NOT_FINITE = Complaint(True, "not finite")


class FakeAverager:
    """The other ranks of `SIZE` hold zeros in everything, unless `others` says more."""

    clean = True

    def __init__(self):
        self.closed = "open"
        self.averages = []
        self.others = {}
        self.complaints = [None] * SIZE

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.closed = error

    def average(self, arrays):
        for array in arrays:
            self.averages.append(array.copy())
            array += self.others.get(array.shape, 0.0)
            array /= SIZE

    def vote(self, flag):
        return flag

    def gather(self, value):
        return self.complaints if value is None else [value, *self.complaints[1:]]

    def statistics(self):
        return SimpleNamespace(bytes_sent=100, seconds_waiting=0.25)


class Metrics:
    def __init__(self):
        self.lines = []

    def gradient(self, *values):
        self.lines.append(("gradient", *values))

    def heartbeat(self, *values):
        self.lines.append(("heartbeat", *values))

    def evaluation(self, *values):
        self.lines.append(("evaluation", *values))

    def exchange(self, *values):
        self.lines.append(("exchange", *values))


def make_course(total=10, every=None, rank=0, **options):
    plan = Plan(
        recipe=RECIPE,
        total_gradients=total,
        average_every=every,
        rate=lambda progress: 0.1,
    )
    return SynchronousCourse(
        FakeAverager(), plan, rank, SIZE, Metrics(), clock=ManualClock(), **options
    )


def go(course, steps):
    for _ in range(steps):
        course.count(0.5, 0.1)


def test_a_step_counts_for_as_many_gradients_as_there_are_ranks():
    course = make_course(total=10)
    assert (course.progress, course.finished) == (0.0, False)
    go(course, 2)
    assert (course.progress, course.finished) == (0.8, False)
    go(course, 1)
    assert (course.progress, course.finished) == (1.0, True)
    figures = course.statistics()
    assert (figures.gradients, figures.total_gradients) == (3, 12)
    assert (figures.exchanges, figures.chi_1, figures.comm_rate_measured) == (
        0,
        None,
        None,
    )


def test_every_step_is_recorded_and_pulses_tell_the_total():
    course = make_course()
    go(course, 2)
    assert course._metrics.lines == [
        ("gradient", 0.0, 1.0, 1, 0.5, 0.1),
        ("heartbeat", 0.0, 1.0, 1, 4, None, 0.0),
        ("gradient", 0.0, 2.0, 2, 0.5, 0.1),
    ]
    course.record((1.0, 0.5))
    assert course._metrics.lines[-1] == ("evaluation", 0.0, 2.0, 2, 1.0, 0.5)


def test_a_wish_to_stop_is_heard_at_the_next_pulse_and_tells_the_reason():
    course = make_course(total=10**6)
    with course:
        go(course, 1)
        course.stop()
        assert not course.finished
        while not course.finished:
            go(course, 1)
    assert course.steps == 3  # pulses after steps 1 and 3
    assert course.stop_reason == "interrupted"


def test_another_ranks_wish_to_stop_ends_this_one():
    course = make_course(total=10**6)
    course._averager.others = {(3 + SIZE,): np.array([1.0, 0, 0, 0, 0, 0, 0])}
    go(course, 1)
    assert course.finished


@pytest.mark.parametrize("every", [4, 5, 7, 100])
@pytest.mark.parametrize("rank", [0, 1])
def test_evaluations_come_when_their_number_of_gradients_is_passed(every, rank):
    x = np.full(2, 8.0)
    course = make_course(total=60, every=every, rank=rank, parameters=[x])
    if rank:  # rank 0 leads
        said = np.zeros(3 + SIZE + CELLS + 1)
        said[1:3] = 1.0
        course._averager.others = {said.shape: said}
    seen = []
    while not course.finished:
        go(course, 1)
        if (average := course.take_average()) is not None:
            assert course.take_average() is None
            total, (copy,) = average
            assert (copy == 2.0).all()
            seen.append(total)
    expected = [t for t in range(4, 60, 4) if t // every > (t - 4) // every]
    assert seen == ([] if rank else expected)
    assert (x == 8.0).all()


def test_the_end_averages_what_differs_and_tells_how_far_apart_it_was():
    x, buffer = np.array([4.0, 0.0]), np.array([8.0])
    course = make_course(parameters=[x], buffers=[buffer])
    with course:
        go(course, 3)
    assert x.tolist() == [1.0, 0.0]
    assert buffer.tolist() == [2.0]
    assert course.stop_reason == "finished"
    assert course._averager.closed is None
    figures = course.statistics()
    assert figures.consensus_distance == pytest.approx(9.0 / SIZE)
    # 100 from the averager, and 2 (n - 1) / n of 16 and of 8 bytes
    assert (figures.bytes_sent, figures.idle_seconds) == (100 + 24 + 12, 0.25)
    assert (course.told, course.clean) == (True, True)


def test_local_steps_are_averaged_when_they_are_due_but_not_twice_at_the_end():
    x = np.array([256.0])
    course = make_course(total=4 * SIZE, parameters=[x])
    values = []
    for _ in range(4):
        go(course, 1)
        course.average_every(2)
        values.append(x[0])
    assert values == [256.0, 64.0, 64.0, 64.0]


def test_a_run_that_is_stopped_has_averaged_before_its_last_checkpoint():
    x = np.array([256.0])
    course = make_course(total=100 * SIZE, parameters=[x])
    course.stop()
    go(course, 1)
    assert course.finished
    course.average_every(1)
    assert x.tolist() == [64.0]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_complaint_of_one_rank_is_raised_by_all(at_the_end):
    course = make_course(total=8 * SIZE)
    course._averager.others = {(SIZE,): np.array([0.0, 0.0, 1.0, 0.0])}
    course._averager.complaints[2] = NOT_FINITE

    def run():
        with course:
            go(course, 2)
            if not at_the_end:
                course.average_every(2)

    with pytest.raises(NonFiniteError, match="one of rank 2 is not finite"):
        run()
    assert (course.told, course.clean) == (True, True)
    assert course.stop_reason == "failed"


@pytest.mark.parametrize(
    ("error", "told", "clean", "passed_on"),
    [
        (ZeroDivisionError("x"), True, False, True),
        (RemoteError(1, "x"), True, False, True),
        (DeadlineExceeded("x"), False, False, True),
        (NonFiniteError("x"), True, True, False),
    ],
)
def test_how_an_error_leaves_the_ranks(error, told, clean, passed_on):
    course = make_course()

    def run():
        with course:
            raise error

    with pytest.raises(type(error)):
        run()
    assert (course.told, course.clean) == (told, clean)
    assert course._averager.closed is (error if passed_on else None)
    assert course.stop_reason == "failed"
    assert course.statistics().bytes_sent == 100


class Stubborn(FakeAverager):
    """Cannot be closed."""

    def __exit__(self, kind, error, traceback):
        raise DeadlineExceeded("nobody answers")


def test_an_error_while_closing_hides_no_other_but_is_known():
    course = make_course()
    course.hold(Stubborn())

    def run():
        with course:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert not course.told


def test_waiting_for_the_slowest_rank_is_idle_time():
    x = np.zeros(2)
    course = make_course(total=8 * SIZE, parameters=[x])
    average, clock = course._averager.average, course._clock

    def slow(arrays):
        clock.advance(0.5)
        average(arrays)

    course._averager.average = slow
    go(course, 2)  # the first step brings a pulse
    assert course.statistics().idle_seconds == 0.25 + 0.5
    course.average_every(2)  # complaints, then the average
    assert course.statistics().idle_seconds == 0.25 + 1.5


def test_a_complaint_is_heard_with_a_pulse_too():
    course = make_course(total=100 * SIZE)
    said = np.zeros(3 + SIZE)
    said[3 + 2] = 1.0
    course._averager.others = {said.shape: said}
    course._averager.complaints[2] = NOT_FINITE

    def run():
        with course:
            go(course, 1)

    with pytest.raises(NonFiniteError, match="one of rank 2 is not finite"):
        run()
    assert (course.told, course.clean) == (True, True)


def test_the_distance_is_known_from_the_first_pulse_on():
    course = make_course(total=100 * SIZE, parameters=[np.array([4.0, 0.0])])
    assert course.statistics().consensus_distance is None
    go(course, 1)
    # The other ranks' sketches, squares included, are zeros.
    assert course.statistics().consensus_distance == pytest.approx(16 / 4 - 1)
    assert course._metrics.lines[-1][-1] == pytest.approx(16 / 4 - 1)


def test_exchanges_are_counted_and_recorded_for_each_peer():
    course = make_course(total=100 * SIZE)
    course.exchanged((1, 3), 80, 0.25)
    go(course, 1)
    course.exchanged((1, 3), 80, 0.5)
    lines = course._metrics.lines
    assert lines[:2] == [("exchange", 0.0, 0.0, 0, peer, 80, 0.25) for peer in (1, 3)]
    assert lines[3] == ("heartbeat", 0.0, 1.0, 1, 4, 2.0, 0.0)
    assert lines[-1] == ("exchange", 0.0, 1.0, 1, 3, 80, 0.5)
    figures = course.statistics()
    assert (figures.exchanges, figures.comm_rate_measured) == (4, 4.0)


def test_the_distance_of_bfloat16_is_that_of_its_numbers():
    x = bfloat16.encode(np.array([4.0, 0.0]))
    course = make_course(parameters=[x])
    course._averager.average = lambda arrays: None
    assert course._average_at_last() == 0.0

    def average(arrays):
        if arrays[0] is x:
            x[:] = bfloat16.encode(np.array([1.0, 0.0]))

    course._averager.average = average
    assert course._average_at_last() == 9.0


def test_an_own_error_waits_until_all_hear_of_it():
    course = make_course(total=100 * SIZE)
    steps = []

    def run():
        with course:
            for _ in range(9):
                loss = course.complaints.attempt(
                    lambda: steps.append(1) or 1 / (len(steps) < 3), 7.0
                )
                assert course.complaints.any == (len(steps) >= 3)
                course.count(loss, 0.1)

    with pytest.raises(ZeroDivisionError):
        run()
    assert course.steps == 3  # pulses after steps 1 and 3
    assert (course.told, course.clean, course.stop_reason) == (True, True, "failed")
    assert course._averager.closed is None


def test_an_error_of_another_rank_is_raised_with_its_text():
    course = make_course(total=100 * SIZE)
    said = np.zeros(3 + SIZE)
    said[3 + 1] = 1.0
    course._averager.others = {said.shape: said}
    course._averager.complaints[1] = Complaint(False, "KeyError: 'x'")

    def run():
        with course:
            go(course, 1)

    with pytest.raises(RemoteError, match=r"rank 1 failed.*KeyError: 'x'"):
        run()
    assert (course.told, course.clean) == (True, True)


@pytest.mark.parametrize("error", [RemoteError(1, "x"), DeadlineExceeded("x")])
def test_an_error_of_the_averaging_itself_cannot_wait(error):
    course = make_course()

    def fail():
        raise error

    with pytest.raises(type(error)):
        course.complaints.attempt(fail, None)
    assert not course.complaints.any
