"""One at the helm at a time: the thread, or the caller that waits."""

import threading
import time

import pytest

from acidmpi.parallel.helm import OFF_DUTY_SECONDS, Helm
from acidmpi.progress import Pace
from acidmpi.progress.drivers import PollingThread


class FakeLoop:
    """Counts looks, and notices when two are in it at once."""

    def __init__(self):
        self.activity = self.looks = self.collisions = 0
        self.ended = False
        self.failed = None
        self.fails = False
        self._inside = threading.Lock()

    def advance(self):
        if not self._inside.acquire(blocking=False):
            self.collisions += 1
            return Pace.POLL
        time.sleep(1e-4)
        self.looks += 1
        self._inside.release()
        if self.fails:
            raise ZeroDivisionError("planted")
        return Pace.POLL

    def seconds_to_next(self):
        return 1e-4

    def abandon(self, error):
        self.ended, self.failed = True, error


def both_at_work(kind):
    """Looks at the same time that a thread and a caller took, in a fifth of a second."""
    loop = FakeLoop()
    helm = kind(loop, 1.0)
    thread = PollingThread(helm, 1.0, "acidmpi.test")
    thread.start()
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        with helm.taken() as caller:
            caller.wait(lambda seen=loop.looks: loop.looks > seen + 3, 10.0)
    loop.ended = True
    thread.finish()
    return loop.collisions


class Unlocked(Helm):
    """A planted fault: nobody gives way."""

    def advance(self):
        return self._loop.advance()


def test_thread_and_caller_never_advance_together():
    assert both_at_work(Helm) == 0
    assert both_at_work(Unlocked) > 0


def test_the_thread_is_off_duty_while_the_caller_steers():
    loop = FakeLoop()
    helm = Helm(loop, 1.0)
    assert helm.seconds_to_next() == 1e-4
    with helm.taken():
        assert helm.advance() is Pace.POLL
        assert helm.seconds_to_next() == OFF_DUTY_SECONDS
        assert loop.looks == 0
    helm.advance()
    assert loop.looks == 1


@pytest.mark.parametrize("who", ["thread", "caller"])
def test_a_failure_is_dealt_with_at_the_helm(who):
    loop = FakeLoop()
    loop.fails = True
    helm = Helm(loop, 1.0)
    if who == "thread":
        helm.advance()
    else:
        with helm.taken() as caller:
            caller.wait(lambda: loop.ended, 10.0)
    assert isinstance(loop.failed, ZeroDivisionError)
    assert helm.ended
    assert loop.looks == 1
