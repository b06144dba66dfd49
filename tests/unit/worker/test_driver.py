"""How a worker's compute loop is held, and where a failure of its loop goes."""

import signal
import threading
import time

import pytest
from support.scripted_loop import ScriptedLoop, act, fail

from acidmpi.errors import DeadlineExceeded
from acidmpi.worker.driver import InlineDriver, ThreadDriver
from acidmpi.worker.ledger import Ledger


class TellingLoop(ScriptedLoop):
    """It tells the ledger of its failure."""

    def __init__(self, ledger, script=()):
        super().__init__(script)
        self.ledger = ledger

    def abandon(self, error):
        super().abandon(error)
        self.ledger.fail(error)


def thread(script=(), crowd=1.0):
    ledger = Ledger(0, 1, None)
    loop = TellingLoop(ledger, script)
    return loop, ledger, ThreadDriver(loop, ledger, crowd, "acidmpi.test")


def inline(script=(), crowd=1.0):
    ledger = Ledger(0, 1, None)
    loop = TellingLoop(ledger, script)
    return loop, ledger, InlineDriver(loop, ledger, crowd)


@pytest.mark.parametrize("make", [thread, inline])
def test_a_failure_of_the_loop_reaches_the_ledger(make):
    loop, ledger, driver = make([act, fail])
    driver.start()
    driver.finish()
    assert isinstance(loop.failed, ZeroDivisionError)
    assert ledger.failure is loop.failed
    assert ledger.stop_reason == "failed"


def test_a_thread_holds_the_compute_loop_by_the_ledger():
    _, ledger, driver = thread()
    ledger.count_gradient(None, 0)
    with pytest.raises(DeadlineExceeded, match="1 exchanges were due"):
        driver.wait_for_lag(0, 1.0, 0.01)
    driver.wait_for_lag(1, 1.0, 0.01)


def test_a_waiting_caller_sleeps_and_counts_it_as_idle():
    loop, ledger, driver = inline()
    ledger.count_gradient(None, 0)
    loop.script = iter(
        [lambda loop: None] * 30 + [lambda loop: ledger.set_exchanges(1)]
    )
    cpu = time.thread_time()
    driver.wait_for_lag(0, 1.0, 30.0)
    assert ledger.idle_seconds > 0.0
    assert time.thread_time() - cpu < ledger.idle_seconds
    assert loop.looks < 40


def test_a_caller_that_need_not_wait_is_not_idle():
    loop, ledger, driver = inline()
    driver.wait_for_lag(0, 1.0, 30.0)
    assert ledger.idle_seconds == 0.0
    assert loop.looks == 0


def test_a_caller_stops_to_wait_when_the_run_stops():
    loop, ledger, driver = inline()
    ledger.count_gradient(None, 0)
    loop.script = iter([lambda loop: None] * 3 + [lambda loop: ledger.raise_flags(2)])
    driver.wait_for_lag(0, 1.0, 30.0)
    assert ledger.stopped


def test_a_caller_meets_its_deadline():
    _, ledger, driver = inline()
    ledger.count_gradient(None, 0)
    with pytest.raises(DeadlineExceeded, match=r"others did not follow within 0.02 s"):
        driver.wait_for_lag(0, 1.0, 0.02)


def test_a_callers_deadline_is_for_each_exchange():
    """As it is with a thread: many of them may take longer together."""
    loop, ledger, driver = inline()
    for _ in range(6):
        ledger.count_gradient(None, 0)

    def exchange(loop):
        time.sleep(0.06)
        ledger.set_exchanges(loop.looks)

    loop.script = iter([exchange] * 6)
    driver.wait_for_lag(0, 1.0, 0.2)
    assert ledger.lag(1.0) == 0


@pytest.fixture
def attentive():
    """Ctrl-C is heard, as it is not in what a shell has started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c(loop):
    loop.activity += 1
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("attentive")
def test_ctrl_c_while_the_caller_advances_it_leaves_the_loop_alive():
    loop, ledger, driver = inline([ctrl_c, act, act])
    with pytest.raises(KeyboardInterrupt):
        driver.poll()
    assert loop.looks == 4
    assert (loop.failed, ledger.failure) == (None, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("attentive")
def test_a_second_ctrl_c_is_not_held():
    loop, _, driver = inline([ctrl_c, ctrl_c, act])
    with pytest.raises(KeyboardInterrupt):
        driver.poll()
    assert isinstance(loop.failed, KeyboardInterrupt)
    assert loop.looks == 2


def test_another_thread_than_the_main_one_advances_it_too():
    loop, _, driver = inline([act])
    other = threading.Thread(target=driver.poll)
    other.start()
    other.join()
    assert loop.looks == 2
