"""Signals: the first asks, the second ends, and none needs the main thread."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from acidmpi.errors import Interrupted, Preempted
from acidmpi.train.signals import SAME_REQUEST_SECONDS, SignalWatch

PATIENCE_SECONDS = 10.0


def wait_until(condition):
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "preempted"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGUSR1, True)],
)
def test_a_signal_asks_for_the_end(number, preempted):
    left = []
    with SignalWatch(leave=left.append) as watch:
        watch.check()
        assert not watch.requested
        os.kill(os.getpid(), number)
        wait_until(lambda: watch.requested)
        assert watch.preempted == preempted
        with pytest.raises(Preempted if preempted else Interrupted):
            watch.check()
    assert left == []


def test_a_later_second_signal_ends_the_process():
    left = []
    with SignalWatch(leave=left.append) as watch:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: watch.requested)
        time.sleep(SAME_REQUEST_SECONDS * 1.2)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: left)
    assert left == [130]


def test_two_signals_at_once_are_one_request():
    left = []
    with SignalWatch(leave=left.append) as watch:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: watch.requested)
    assert left == []


def test_actions_run_in_another_thread_once_and_also_when_they_come_late():
    ran = []
    with SignalWatch(leave=ran.append) as watch:
        watch.then(lambda: ran.append(threading.current_thread()))
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: ran)
        watch.then(lambda: ran.append("late"))
    assert ran[0] is not threading.main_thread()
    assert ran[1:] == ["late"]


class Paused(list):
    """A list whose `append` lets the signal's thread have its turn."""

    def __init__(self, ran):
        self.ran = ran

    def append(self, action):
        super().append(action)
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 0.2
        while not self.ran and time.monotonic() < end:
            time.sleep(0.001)


@pytest.mark.parametrize("planted", [False, True], ids=["lock", "no lock"])
def test_the_lock_lets_an_action_run_once(planted):
    """Planted fault: without it, one that comes with the signal runs twice."""
    ran = []
    with SignalWatch(leave=ran.append) as watch:
        if planted:
            watch._lock = contextlib.nullcontext()
        watch._then = Paused(ran)
        watch.then(lambda: ran.append("ran"))
        wait_until(lambda: ran)
    assert ran == ["ran"] * (2 if planted else 1)


def test_other_signals_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        with SignalWatch(leave=seen.append) as watch:
            os.kill(os.getpid(), signal.SIGUSR2)
            wait_until(lambda: seen)
            assert not watch.requested
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_handlers_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with SignalWatch():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_it_only_listens_to_nothing():
    def run():
        with SignalWatch() as watch:
            assert not watch.requested

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_a_main_thread_that_is_stuck_does_not_stop_the_action(tmp_path):
    """`lock.acquire()` waits in C; no handler in Python would run on time."""
    program = """
import ctypes, pathlib, sys
from acidmpi.train.signals import SignalWatch
with SignalWatch() as watch:
    watch.then(lambda: pathlib.Path(sys.argv[1]).touch())
    print("ready", flush=True)
    libc = ctypes.CDLL(None)
    while True:
        libc.sem_wait(ctypes.create_string_buffer(64))
"""
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(mark)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        wait_until(mark.exists)
        time.sleep(SAME_REQUEST_SECONDS * 1.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
