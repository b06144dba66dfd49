"""Who advances the averaging loop: a thread while the caller computes, then the caller.

A caller that waits for the mean has nothing else to do, and its thread is awake: it takes
the helm until the step is over, which saves two wake-ups and leaves no two threads to
compete for one core and one interpreter. The thread meanwhile sleeps.

One lock, the helm, is held by whoever advances the loop; a failure is dealt with before it
is given up.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from acidmpi.parallel.loop import AveragingLoop
from acidmpi.progress import Pace
from acidmpi.progress.drivers import PollingCaller

OFF_DUTY_SECONDS = 5e-3
"""How often the thread looks whether the caller has left the helm."""


class Helm:
    """A loop for a thread to drive, which leaves it to the caller at times.

    Args:
        loop: what is advanced.
        ranks_per_core: how crowded the machine is.
    """

    def __init__(self, loop: AveragingLoop, ranks_per_core: float) -> None:
        self._loop = loop
        self._caller = PollingCaller(loop, ranks_per_core)
        self._lock = threading.Lock()

    @property
    def activity(self) -> int:
        """See `progress.drivers.Loop`."""
        return self._loop.activity

    @property
    def ended(self) -> bool:
        """See `progress.drivers.Loop`."""
        return self._loop.ended

    def seconds_to_next(self) -> float:
        """See `progress.drivers.Loop`."""
        return OFF_DUTY_SECONDS if self._lock.locked() else self._loop.seconds_to_next()

    def advance(self) -> Pace:
        """Take one step, unless the caller is at the helm; never blocks."""
        if not self._lock.acquire(blocking=False):
            return Pace.POLL
        try:
            return self._loop.advance()
        except BaseException as error:  # as a driver does, but still at the helm
            self._loop.abandon(error)
            return Pace.POLL
        finally:
            self._lock.release()

    def abandon(self, error: BaseException) -> None:
        """Nothing of the loop comes through; what else may fail is a fault here."""
        with self._lock:
            self._loop.abandon(error)

    @contextmanager
    def taken(self) -> Iterator[PollingCaller]:
        """Let the caller, and nobody else, advance the loop in this block."""
        with self._lock:
            yield self._caller
