"""Who advances a loop: politely, at once when something happens, and failing loudly."""

import gc
import sys
import threading
import time
import weakref

import pytest
from support.scripted_loop import ScriptedLoop, act, fail

from acidmpi.errors import DeadlineExceeded
from acidmpi.progress import Pace
from acidmpi.progress.drivers import (
    IDLE_SECONDS,
    LARGEST_CROWD,
    LONGEST_SLEEP_SECONDS,
    SHORTEST_SLEEP_SECONDS,
    PollingCaller,
    PollingThread,
    longest_sleep,
)


def end(loop):
    loop.ended = True


def hot(loop):
    return Pace.HOT


def thread(script=(), crowd=1.0):
    loop = ScriptedLoop(script)
    return loop, PollingThread(loop, crowd, "acidmpi.test")


def inline(script=(), crowd=1.0):
    loop = ScriptedLoop(script)
    return loop, PollingCaller(loop, crowd)


def test_sleeps_are_longer_where_ranks_share_cores():
    assert longest_sleep(0.5) == longest_sleep(1.0) == LONGEST_SLEEP_SECONDS
    assert longest_sleep(4.0) == 4 * LONGEST_SLEEP_SECONDS
    assert longest_sleep(1000.0) == LARGEST_CROWD * LONGEST_SLEEP_SECONDS


# The thread.


def test_a_thread_runs_until_the_loop_has_ended():
    loop, driver = thread([act, act, end])
    driver.start()
    driver.finish()
    assert loop.looks == 3
    assert not driver._thread.is_alive()
    assert driver._thread.daemon
    driver.finish()  # once more does no harm


@pytest.mark.parametrize("make", [thread, inline])
def test_a_failure_of_the_loop_is_handed_to_it(make):
    loop, driver = make([act, fail])
    driver.start()
    driver.finish()
    assert isinstance(loop.failed, ZeroDivisionError)


def looks_during(loop, driver, seconds):
    driver.start()
    time.sleep(seconds)
    looks = loop.looks
    loop.script = iter([end])
    driver.finish()
    return looks


@pytest.mark.parametrize("crowd", [1.0, 5.0])
def test_an_idle_thread_hardly_ever_looks(crowd):
    loop, driver = thread(crowd=crowd)
    looks = looks_during(loop, driver, 0.4)
    assert looks < 0.4 / longest_sleep(crowd) + 20


class Restless(PollingThread):
    """A planted fault: it never sleeps."""

    def _sleep(self, seconds):
        pass


def test_a_busy_thread_is_found():
    loop = ScriptedLoop()
    assert looks_during(loop, Restless(loop, 1.0, "busy"), 0.2) > 300


def test_a_thread_looks_when_something_is_due():
    loop, driver = thread()
    loop.next = 1e-3
    assert 5 < looks_during(loop, driver, 0.5) < 500


def test_a_thread_does_not_sleep_while_bytes_move():
    loop, driver = thread([hot] * 5000 + [end])
    began = time.perf_counter()
    driver.start()
    driver.finish()
    assert loop.looks == 5001
    assert time.perf_counter() - began < 0.5 * 5000 * LONGEST_SLEEP_SECONDS


def test_news_make_a_thread_look_again_soon():
    """After something happened the sleeps are short again; without that they are long."""

    def sleeps(script):
        _, driver = thread([*script, end])
        slept = []
        driver._sleep = slept.append
        driver.start()
        driver.finish()
        return slept

    quiet = [lambda loop: None] * 6
    assert sleeps(quiet) == [50e-6 * 2**k for k in range(6)]
    with_news = sleeps([*quiet[:3], act, *quiet[:2]])
    assert with_news == [50e-6, 100e-6, 200e-6, 50e-6, 100e-6]


def test_waking_ends_a_sleep_and_the_end_needs_no_other():
    loop, driver = thread(crowd=LARGEST_CROWD)
    driver._backoff._next = driver._backoff._longest = 30.0
    driver.start()
    time.sleep(0.05)
    loop.script = iter([end])
    began = time.perf_counter()
    driver.finish()
    assert time.perf_counter() - began < 10.0


def wake_within(driver, moment):
    """Wake it and, after so many lines of that, as a signal handler would, again."""
    before = iter(range(moment))

    def trace(*_):
        if next(before, None) is None:
            sys.settrace(None)
            driver.wake()
        return trace

    sys.settrace(trace)
    driver.wake()
    sys.settrace(None)


@pytest.mark.parametrize("moment", range(20))
def test_a_signal_handler_may_wake_it_at_any_moment(moment):
    _, driver = thread()
    waker = threading.Thread(target=wake_within, args=(driver, moment), daemon=True)
    waker.start()
    waker.join(10.0)
    assert not waker.is_alive()


def test_polling_a_thread_does_nothing():
    loop, driver = thread([fail])
    driver.poll()
    assert loop.looks == 0


# The caller.


def test_polling_goes_on_until_the_loop_waits_for_others():
    loop, driver = inline([act, hot, hot, act, hot])
    driver.poll()
    # Hot steps, then one look after each change finds nothing more.
    assert 6 <= loop.looks <= 8
    before = loop.looks
    driver.poll()
    assert loop.looks == before + 1


def test_what_one_thread_advances_no_other_does_meanwhile():
    inside, go_on = threading.Event(), threading.Event()

    def stay(loop):
        inside.set()
        go_on.wait(10.0)

    loop, driver = inline([stay])
    other = threading.Thread(target=driver.poll)
    other.start()
    inside.wait(10.0)
    driver.poll()
    assert loop.looks == 1
    go_on.set()
    other.join(10.0)
    driver.poll()
    assert loop.looks > 1


def test_the_caller_runs_the_loop_to_its_end():
    quiet = [lambda loop: None]
    loop, driver = inline([*quiet * 20, act, *quiet * 3, end])
    driver.start()
    driver.finish()
    assert loop.ended


def test_a_waiting_caller_sleeps():
    loop, driver = inline([lambda loop: None] * 30 + [end])
    cpu, began = time.thread_time(), time.perf_counter()
    assert driver.wait(lambda: loop.ended, 30.0)
    assert time.thread_time() - cpu < time.perf_counter() - began
    assert loop.looks < 40


def test_news_make_a_caller_look_again_soon(monkeypatch):
    slept = []
    monkeypatch.setattr("acidmpi.progress.drivers.time.sleep", slept.append)
    quiet = [lambda loop: None]
    loop, driver = inline([*quiet * 3, act, *quiet * 2, end])
    assert driver.wait(lambda: loop.ended, 30.0)
    # Polling goes on after news, so that the first of the two is a look without a sleep.
    assert slept == [50e-6, 100e-6, 200e-6, 50e-6, 100e-6]


def test_a_caller_that_need_not_wait_does_not_look():
    loop, driver = inline()
    assert not driver.wait(lambda: True, 30.0)
    assert loop.looks == 0


def test_a_caller_meets_its_deadline():
    _, driver = inline()
    with pytest.raises(DeadlineExceeded, match=r"others did not follow within 0\.02 s"):
        driver.wait(lambda: False, 0.02)


def idle(loop):
    return Pace.IDLE


def test_a_loop_that_waits_for_its_caller_is_left_alone_until_it_is_woken():
    loop, driver = thread()
    loop.pace, loop.next = Pace.IDLE, 1e-3
    assert looks_during(loop, driver, 0.5) < 0.5 / IDLE_SECONDS + 5

    loop, driver = thread([idle, end])
    driver.start()
    began = time.perf_counter()
    driver.wake()
    driver.finish()
    assert time.perf_counter() - began < 10 * IDLE_SECONDS
    assert loop.looks == 2


def test_waiting_for_the_caller_is_no_step_towards_longer_sleeps():
    _, driver = thread([idle] * 9 + [lambda loop: None, end])
    slept = []
    driver._sleep = slept.append
    driver.start()
    driver.finish()
    assert slept == [*[IDLE_SECONDS] * 9, SHORTEST_SLEEP_SECONDS]


def test_a_loop_lives_until_it_is_finished():
    """MPI may still write to what it has posted, though its owner is gone."""
    loop, driver = inline([lambda loop: None, end])
    driver.start()
    gone = weakref.ref(driver)
    del driver
    gc.collect()
    assert gone() is not None
    gone().finish()
    gc.collect()
    assert gone() is None
    assert loop.ended
