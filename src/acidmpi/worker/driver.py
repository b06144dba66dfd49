"""Who advances a worker's loop (`progress.drivers`), and how its compute loop is held.

A failure of the loop is kept in the ledger, from where the compute loop raises it.
"""

import time
from collections.abc import Callable

from acidmpi.progress.drivers import Loop, PollingCaller, PollingThread
from acidmpi.progress.interrupts import interrupts_held
from acidmpi.worker.ledger import Ledger


class ThreadDriver(PollingThread):
    """A daemon thread that owns the loop from `start` until the loop has ended.

    Args:
        loop: what to advance.
        ledger: where a failure goes.
        ranks_per_core: how crowded the machine is.
        name: of the thread.
    """

    def __init__(
        self, loop: Loop, ledger: Ledger, ranks_per_core: float, name: str
    ) -> None:
        super().__init__(loop, ranks_per_core, name)
        self._ledger = ledger

    def wait_for_lag(self, limit: int, rate: float, seconds: float) -> None:
        """Hold the compute loop while `Ledger.lags(limit, rate)`."""
        self._ledger.wait_for_lag(limit, rate, seconds)


class InlineDriver(PollingCaller):
    """The caller advances the loop, in its own thread: for MPI below THREAD_MULTIPLE.

    Args:
        loop: what to advance.
        ledger: where a failure goes.
        ranks_per_core: how crowded the machine is.
    """

    def __init__(self, loop: Loop, ledger: Ledger, ranks_per_core: float) -> None:
        super().__init__(loop, ranks_per_core)
        self._ledger = ledger
        self._leaving = False

    def poll(self) -> None:
        """Advance until the loop waits for others; a Ctrl-C meanwhile does not tear it."""
        if self._leaving:
            super().poll()
            return
        with interrupts_held():
            super().poll()

    def finish(self) -> None:
        """Advance until the loop has ended or failed; a Ctrl-C is a failure here."""
        self._leaving = True
        super().finish()

    def wait_for_lag(self, limit: int, rate: float, seconds: float) -> None:
        """Advance while `Ledger.lags(limit, rate)`; so many seconds for each exchange."""
        ledger = self._ledger
        self.wait_for_all(
            lambda: ledger.lag(rate) - limit if ledger.lags(limit, rate) else 0.0,
            seconds,
        )

    def wait_for_all(self, left: Callable[[], float], seconds: float) -> None:
        """Advance until nothing is `left()`; the time counts as idle.

        Raises:
            DeadlineExceeded: it did not become less for `seconds`.
        """
        before = left()
        while before > 0:
            self._wait_for_less(left, before, seconds)
            before = left()

    def _wait_for_less(
        self, left: Callable[[], float], before: float, seconds: float
    ) -> None:
        self.wait_while(lambda: left() >= before, seconds)

    def wait_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Advance while `condition()`; the time counts as idle.

        Raises:
            DeadlineExceeded: it took longer than `seconds`.
        """
        began = time.perf_counter()
        if self.wait(lambda: not condition(), seconds):
            self._ledger.idle_seconds += time.perf_counter() - began
