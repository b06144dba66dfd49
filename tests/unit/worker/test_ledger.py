"""What the two loops tell each other: nothing un-happens, nobody waits for nothing."""

import threading
import time
from collections import deque
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import DeadlineExceeded, RemoteError
from acidmpi.worker.ledger import BROKEN, FAILED, FINISHED, INTERRUPTED, Ledger

flags = st.sampled_from([FINISHED, INTERRUPTED, FAILED, BROKEN, FAILED | BROKEN])


def after(gradients, size=2, goal=None):
    """A ledger of a rank that has made so many gradients."""
    ledger = Ledger(0, size, goal)
    for _ in range(gradients):
        ledger.count_gradient(None, 0)
    return ledger


def floats(*numbers):
    return np.array(numbers, np.float64)


@given(st.lists(flags))
def test_flags_are_sticky_and_only_news_are_returned(raised):
    ledger, seen = Ledger(0, 1, None), 0
    assert not ledger.stopped
    for bits in raised:
        assert ledger.raise_flags(bits) == bits & ~seen
        seen |= bits
        assert ledger.flags == seen
        assert ledger.stopped


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (0, "finished"),
        (FINISHED, "finished"),
        (FINISHED | INTERRUPTED, "interrupted"),
        (FINISHED | INTERRUPTED | FAILED, "failed"),
        (FAILED | BROKEN, "failed"),
    ],
)
def test_the_worst_news_are_the_reason(raised, reason):
    ledger = Ledger(0, 1, None)
    ledger.raise_flags(raised)
    assert ledger.stop_reason == reason


def test_the_first_failure_is_kept():
    ledger = Ledger(0, 2, None)
    first = ZeroDivisionError("first")
    ledger.fail(first)
    ledger.fail(RemoteError(1, "second"), FAILED | BROKEN)
    assert ledger.failure is first
    assert ledger.flags == FAILED | BROKEN


counts = st.tuples(st.integers(0, 3), st.integers(0, 50))


@given(st.lists(counts), st.integers(1, 120))
def test_counts_are_maxima_and_the_goal_is_reached_once(news, goal):
    """Late and repeated news do no harm, in whatever way they come."""
    ledger, known = Ledger(3, 4, goal), [0] * 4
    for number, (rank, gradients) in enumerate(news):
        if number % 3 == 2:
            told = [gradients if r == rank else 0 for r in range(4)]
            ledger.learn_all(floats(*told))
        else:
            ledger.learn(rank, gradients)
        known[rank] = max(known[rank], gradients)
        assert ledger.total_gradients == sum(known)
        assert ledger.stopped == (sum(known) >= goal)


def test_own_gradients_are_counted_with_their_losses():
    ledger = Ledger(1, 3, None)
    ledger.count_gradient(2.0, 10)
    ledger.count_gradient(None, 5)
    ledger.count_gradient(4.0, 0)
    assert ledger.gradients == ledger.total_gradients == 3
    assert ledger.losses == (6.0, 2.0)
    assert ledger.samples == 15
    assert not ledger.stopped


def test_one_loss_that_is_no_number_does_not_spoil_their_mean():
    ledger = Ledger(0, 1, None)
    for loss in (1.0, float("nan"), float("inf"), 3.0):
        ledger.count_gradient(loss, 1)
    assert ledger.losses == (4.0, 2.0)
    assert ledger.gradients == 4


def test_a_goal_of_all_ranks_stops_this_one():
    ledger = Ledger(0, 2, 5)
    ledger.learn(1, 4)
    assert not ledger.stopped
    ledger.count_gradient(None, 0)
    assert ledger.flags == FINISHED


# Who waits.


@given(
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 8),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_who_has_made_more_than_its_exchanges_allow_waits(
    exchanges, gradients, limit, rate
):
    ledger = after(gradients)
    ledger.set_exchanges(exchanges)
    assert ledger.lag(rate) == rate * gradients - exchanges
    assert ledger.lags(limit, rate) == (rate * gradients > exchanges + limit)
    ledger.raise_flags(INTERRUPTED)
    assert not ledger.lags(limit, rate), "whoever is to stop does not wait"


def test_exchanges_may_be_counted_anew():
    ledger = after(100)
    ledger.count_exchanges_anew()
    assert ledger.lag(2.0) == 0.0
    ledger.count_gradient(None, 0)
    ledger.set_exchanges(1)
    again = after(0)
    again.restore(ledger.state(), [101, 0])
    again.set_exchanges(1)
    assert again.lag(2.0) == ledger.lag(2.0) == 1.0


def test_where_exchanges_are_scarce_the_free_running_rank_waits():
    """The story of `Ledger.lag`: one rank is fast, two are slow, and few exchanges come.

    Each turn brings one exchange for every rank; the fast one could make ten gradients
    in it, a slow one makes one.
    """

    def run(lags):
        ledgers = [Ledger(rank, 3, None) for rank in range(3)]
        for turn in range(200):
            for rank, speed in enumerate((10, 1, 1)):
                ledgers[rank].set_exchanges(turn)
                for _ in range(speed):
                    if not lags(ledgers[rank], turn, ledgers):
                        ledgers[rank].count_gradient(None, 0)
        return [ledger.gradients for ledger in ledgers]

    made = run(lambda ledger, turn, ledgers: ledger.lags(4, 1.0))
    assert made == [204, 200, 200], "only the fast one waits"

    # By time, which all ranks make pass together, all would owe what the fast one runs up.
    def by_time(ledger, turn, ledgers):
        units = np.mean([one.gradients for one in ledgers])
        return units - turn > 4

    assert min(run(by_time)) < 150


def test_no_wait_without_need():
    ledger = after(3)
    began = time.perf_counter()
    ledger.wait_for_lag(3, 1.0, 60.0)
    assert time.perf_counter() - began < 10.0
    assert ledger.idle_seconds == 0.0


@pytest.mark.parametrize(
    "relief",
    [
        lambda ledger: ledger.set_exchanges(3),
        lambda ledger: ledger.raise_flags(INTERRUPTED),
        lambda ledger: ledger.fail(ValueError()),
        lambda ledger: ledger.learn(1, 100),
        lambda ledger: ledger.learn_all(floats(0, 100)),
    ],
    ids=["exchanges", "stop", "failure", "goal", "goal by heartbeat"],
)
def test_a_waiting_loop_is_woken(relief):
    ledger = after(5, goal=100)
    waiter = threading.Thread(target=ledger.wait_for_lag, args=(2, 1.0, 60.0))
    waiter.start()
    time.sleep(0.02)
    assert waiter.is_alive()
    relief(ledger)
    waiter.join(30.0)
    assert not waiter.is_alive()
    assert 0.0 < ledger.idle_seconds < 30.0


def test_two_threads_that_wait_are_both_woken():
    ledger = after(5)
    limits = (4, 2)
    first, second = (
        threading.Thread(target=ledger.wait_for_lag, args=(limit, 1.0, 60.0))
        for limit in limits
    )
    first.start()
    second.start()
    time.sleep(0.05)
    ledger.set_exchanges(1)
    first.join(10.0)
    time.sleep(0.05)
    ledger.set_exchanges(3)
    second.join(10.0)
    assert not second.is_alive()


def test_a_wait_meets_its_deadline():
    ledger = after(5, goal=100)
    with pytest.raises(
        DeadlineExceeded, match=r"5 exchanges were due for 0.01 s.*max_lag"
    ):
        ledger.wait_for_lag(2, 1.0, 0.01)
    assert ledger.idle_seconds >= 0.01


def test_each_exchange_renews_the_deadline():
    ledger = after(10)
    waiter = threading.Thread(target=ledger.wait_for_lag, args=(0, 1.0, 1.0))
    waiter.start()
    for made in range(1, 11):
        time.sleep(0.12)
        ledger.set_exchanges(made)
    waiter.join(30.0)
    assert ledger.idle_seconds > 1.1


def test_only_the_newest_average_is_handed_over():
    ledger = Ledger(0, 1, None)
    assert ledger.take_average() is None
    ledger.put_average("old")
    ledger.put_average("new")
    assert ledger.take_average() == "new"
    assert ledger.take_average() is None


# The lock.


def check_counting(every_moment, lock=None):
    """The compute loop counts its own gradients while news of others come."""

    def make():
        ledger = after(3)
        if lock is not None:
            ledger._changed = lock

        def check():
            assert ledger.total_gradients == 9
            assert ledger.gradients == 4

        return (
            lambda: ledger.count_gradient(1.0, 1),
            lambda: ledger.learn(1, 5),
            check,
        )

    every_moment(make)


def test_no_count_is_lost(every_moment):
    check_counting(every_moment)


def test_a_missing_lock_is_found(every_moment, no_lock):
    with pytest.raises(AssertionError):
        check_counting(every_moment, no_lock)


def check_averages(every_moment, kind):
    """The newest average is never lost, and comes after the older one."""

    def make():
        ledger, taken = kind(0, 1, None), []
        ledger.put_average("old")

        def take():
            taken.extend(ledger.take_average() for _ in range(2))

        def check():
            taken.append(ledger.take_average())
            found = [average for average in taken if average is not None]
            assert found in (["old", "new"], ["new"])

        return lambda: ledger.put_average("new"), take, check

    every_moment(make)


def test_no_average_is_lost(every_moment):
    check_averages(every_moment, Ledger)


class UnlockedAverages(Ledger):
    """A planted fault: a queue that both loops shorten, each for itself."""

    def put_average(self, average):
        self.__dict__.setdefault("queue", deque()).append(average)
        while len(self.queue) > 1:
            self.queue.popleft()

    def take_average(self):
        return self.queue.popleft() if self.__dict__.get("queue") else None


def test_an_unlocked_average_is_found(every_moment):
    with pytest.raises((AssertionError, IndexError)):
        check_averages(every_moment, UnlockedAverages)


class Silent(threading.Condition):
    """A planted fault: it wakes nobody."""

    def notify_all(self):
        pass


def test_a_missing_wake_up_is_found():
    ledger = after(5)
    ledger._changed = Silent()
    threading.Timer(0.05, ledger.set_exchanges, (9,)).start()
    began = time.perf_counter()
    ledger.wait_for_lag(2, 1.0, 0.5)
    assert time.perf_counter() - began > 0.4, "nobody woke it, only its deadline did"


def check_wake_ups(interrupt, kind):
    """No exchange falls between looking and going to sleep."""
    for moment in count():
        ledger, came = kind(0, 1, None), []
        ledger.count_gradient(None, 0)

        def exchange(ledger=ledger, came=came):
            came.append(time.perf_counter())
            ledger.set_exchanges(1)

        began = time.perf_counter()
        with suppress(DeadlineExceeded):
            interrupt(lambda: ledger.wait_for_lag(0, 1.0, 1.0), exchange, moment)  # noqa: B023
        if not came or came[0] - began > 0.9:
            assert moment > 20, "it slept before anything could come"
            return  # it slept before the exchange came
        assert time.perf_counter() - came[0] < 0.8, moment


def test_no_wake_up_is_missed(interrupt):
    check_wake_ups(interrupt, Ledger)


class Drowsy(Ledger):
    """A planted fault: it looks, and only then says that it waits."""

    def wait_for_lag(self, limit, rate, seconds):
        if not self.lags(limit, rate):
            return
        with self._changed:
            self._waiting = True
            self._changed.wait(seconds)
            self._waiting = False


def test_a_missed_wake_up_is_found(interrupt):
    with pytest.raises(AssertionError):
        check_wake_ups(interrupt, Drowsy)
