"""Who advances the communication loop: a thread of its own, or the caller.

The thread sleeps between looks, twice as long after each that found nothing, and never
longer than until the next exchange is due. While bytes move it does not sleep, but gives
its core away when another thread wants it. A failure of the loop is kept in the ledger,
from where the compute loop raises it.
"""

import math
import os
import threading
import time
from collections.abc import Callable

from acidmpi.errors import DeadlineExceeded
from acidmpi.progress import Backoff, Pace
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.loop import CommunicationLoop

SHORTEST_SLEEP_SECONDS = 50e-6
LONGEST_SLEEP_SECONDS = 15e-3
LARGEST_CROWD = 4.0


def longest_sleep(ranks_per_core: float) -> float:
    """Seconds an idle loop may sleep: longer when ranks share a core."""
    return LONGEST_SLEEP_SECONDS * min(max(ranks_per_core, 1.0), LARGEST_CROWD)


class ThreadDriver:
    """A daemon thread that owns the loop from `start` until the loop has ended.

    Args:
        loop: what to advance.
        ledger: where a failure goes.
        ranks_per_core: how crowded the machine is.
        name: of the thread.
    """

    def __init__(
        self, loop: CommunicationLoop, ledger: Ledger, ranks_per_core: float, name: str
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._backoff = Backoff(SHORTEST_SLEEP_SECONDS, longest_sleep(ranks_per_core))
        self._crowded = ranks_per_core > 1.0
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something changed that the loop should see at once."""
        self._wake.set()

    def poll(self) -> None:
        """Nothing to do: the thread does it."""

    def finish(self) -> None:
        """Wait until the loop has ended or failed: its own deadlines bound that."""
        self.wake()
        while self._thread.is_alive():
            self._thread.join(1.0)

    def wait_for_lag(self, limit: int, rate: float, seconds: float) -> None:
        """Hold the compute loop while `Ledger.lags(limit, rate)`."""
        self._ledger.wait_for_lag(limit, rate, seconds)

    def _run(self) -> None:
        try:
            while not self._loop.ended:
                self._look()
        except BaseException as error:
            self._loop.abandon(error)

    def _look(self) -> None:
        seen = self._loop.activity
        pace = self._loop.advance()
        if self._loop.activity != seen:
            self._backoff.reset()
        elif pace is not Pace.HOT and not self._loop.ended:
            self._sleep(min(self._backoff.next(), self._loop.seconds_to_next()))
        if self._crowded:
            os.sched_yield()

    def _sleep(self, seconds: float) -> None:
        if seconds > 0.0 and self._wake.wait(seconds):
            self._wake.clear()


class InlineDriver:
    """The caller advances the loop, in its own thread: for MPI below THREAD_MULTIPLE.

    Args:
        loop: what to advance.
        ledger: where a failure goes.
        ranks_per_core: how crowded the machine is.
    """

    def __init__(
        self, loop: CommunicationLoop, ledger: Ledger, ranks_per_core: float
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._longest = longest_sleep(ranks_per_core) / 4

    def start(self) -> None:
        """Begin: the first look."""
        self.poll()

    def wake(self) -> None:
        """Nothing sleeps."""

    def poll(self) -> None:
        """Advance until the loop waits for others."""
        try:
            seen = -1
            while self._loop.activity != seen:
                seen = self._loop.activity
                while self._loop.advance() is Pace.HOT:
                    pass
        except BaseException as error:
            self._loop.abandon(error)

    def finish(self) -> None:
        """Advance until the loop has ended or failed: its own deadlines bound that."""
        self._wait(lambda: self._loop.ended, math.inf)

    def wait_for_lag(self, limit: int, rate: float, seconds: float) -> None:
        """Advance while `Ledger.lags(limit, rate)`."""
        self.wait_while(lambda: self._ledger.lags(limit, rate), seconds)

    def wait_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Advance while `condition()`; the time counts as idle.

        Raises:
            DeadlineExceeded: it took longer than `seconds`.
        """
        began = time.perf_counter()
        if self._wait(lambda: not condition(), seconds):
            self._ledger.idle_seconds += time.perf_counter() - began

    def _wait(self, over: Callable[[], bool], seconds: float) -> bool:
        """Poll with back-off until `over()`; whether it had to wait at all."""
        end = time.perf_counter() + seconds
        backoff = Backoff(SHORTEST_SLEEP_SECONDS, self._longest)
        waited = False
        while not over():
            self.poll()
            if time.perf_counter() > end:
                raise DeadlineExceeded(f"others did not follow within {seconds:g} s")
            if not over():
                waited = True
                time.sleep(min(backoff.next(), self._loop.seconds_to_next()))
        return waited
