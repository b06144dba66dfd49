"""Who advances a communication loop: a thread of its own, or the caller.

The thread sleeps between looks, twice as long after each that found nothing, and never
longer than until something is due, unless the loop says that only its caller can give it
something to do. While bytes move it does not sleep, but gives its core
away when another thread wants it. A failure goes to the loop's `abandon`.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from acidmpi.errors import DeadlineExceeded
from acidmpi.progress.waits import Backoff, Pace

SHORTEST_SLEEP_SECONDS = 50e-6
LONGEST_SLEEP_SECONDS = 15e-3
LARGEST_CROWD = 4.0

IDLE_SECONDS = 0.1
"""Sleep of a loop that waits for its caller: a look at caches that a computation fills
with its own takes 100 µs of its core."""


class Loop(Protocol):
    """What can be driven: a state machine of non-blocking calls, with one owner."""

    @property
    def activity(self) -> int:
        """Grows whenever something happened; a driver resets its back-off on it."""
        ...

    @property
    def ended(self) -> bool:
        """Whether there is nothing to advance any more."""
        ...

    def advance(self) -> Pace:
        """Take one step; never blocks, never sleeps."""
        ...

    def seconds_to_next(self) -> float:
        """A bound on how long nothing will be due by itself."""
        ...

    def abandon(self, error: BaseException) -> None:
        """The loop has failed so and is not advanced again."""
        ...


def longest_sleep(ranks_per_core: float) -> float:
    """Seconds an idle loop may sleep: longer when ranks share a core."""
    return LONGEST_SLEEP_SECONDS * min(max(ranks_per_core, 1.0), LARGEST_CROWD)


class PollingThread:
    """A daemon thread that owns the loop from `start` until the loop has ended.

    Args:
        loop: what to advance.
        ranks_per_core: how crowded the machine is.
        name: of the thread.
    """

    def __init__(self, loop: Loop, ranks_per_core: float, name: str) -> None:
        self._loop = loop
        self._backoff = Backoff(SHORTEST_SLEEP_SECONDS, longest_sleep(ranks_per_core))
        self._crowded = ranks_per_core > 1.0
        self._seen = loop.activity
        self._quiet = threading.Lock()
        """Held while nothing has changed; an `Event` hangs if a signal handler sets it
        just as the thread that it interrupts does."""
        self._quiet.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something changed that the loop should see at once; from signal handlers too."""
        with suppress(RuntimeError):  # somebody has said so already
            self._quiet.release()

    def poll(self) -> None:
        """Nothing to do: the thread does it."""

    def finish(self) -> None:
        """Wait until the loop has ended or failed: its own deadlines bound that."""
        self.wake()
        while self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while not self._loop.ended:
                self._look()
        except BaseException as error:
            self._loop.abandon(error)

    def _look(self) -> None:
        pace = self._loop.advance()
        activity = self._loop.activity
        if activity != self._seen:
            self._seen = activity
            self._backoff.reset()
        elif pace is not Pace.HOT and not self._loop.ended:
            self._sleep(self._pause(pace))
        if self._crowded:
            os.sched_yield()

    def _pause(self, pace: Pace) -> float:
        if pace is Pace.IDLE:
            return IDLE_SECONDS
        return min(self._backoff.next(), self._loop.seconds_to_next())

    def _sleep(self, seconds: float) -> None:
        if seconds > 0.0:
            self._quiet.acquire(timeout=seconds)


_GOING: set["PollingCaller"] = set()
"""Those that have been started and not finished, by any thread: MPI writes to the memory
of their loops, also when nobody has them any more."""


class PollingCaller:
    """The caller advances the loop, in its own thread: for MPI below THREAD_MULTIPLE.

    Args:
        loop: what to advance.
        ranks_per_core: how crowded the machine is.
    """

    def __init__(self, loop: Loop, ranks_per_core: float) -> None:
        self._loop = loop
        self._longest = longest_sleep(ranks_per_core) / 4
        self._advancing = threading.Lock()

    def start(self) -> None:
        """Begin: the first look."""
        _GOING.add(self)
        self.poll()

    def wake(self) -> None:
        """Nothing sleeps."""

    def poll(self) -> None:
        """Advance until the loop waits for others, unless another thread does."""
        if self._advancing.acquire(blocking=False):
            try:
                self._advance()
            except BaseException as error:
                self._loop.abandon(error)
            finally:
                self._advancing.release()

    def finish(self) -> None:
        """Advance until the loop has ended or failed: its own deadlines bound that."""
        try:
            self.wait(lambda: self._loop.ended, math.inf)
        finally:
            _GOING.discard(self)

    def wait(self, over: Callable[[], bool], seconds: float) -> bool:
        """Poll with back-off until `over()`; whether it had to wait at all.

        Raises:
            DeadlineExceeded: it took longer than `seconds`.
        """
        end = time.perf_counter() + seconds
        backoff = Backoff(SHORTEST_SLEEP_SECONDS, self._longest)
        waited = False
        while not over():
            seen = self._loop.activity
            self.poll()
            if self._loop.activity != seen:
                backoff.reset()
            if not over():
                if time.perf_counter() > end:
                    raise DeadlineExceeded(
                        f"others did not follow within {seconds:g} s"
                    )
                waited = True
                time.sleep(min(backoff.next(), self._loop.seconds_to_next()))
        return waited

    def _advance(self) -> None:
        seen = -1
        while self._loop.activity != seen:
            seen = self._loop.activity
            while self._loop.advance() is Pace.HOT:
                pass
