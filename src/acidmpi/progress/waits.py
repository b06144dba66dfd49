"""How a waiting rank spends its time: paces, back-off, deadlines and polite waits.

Work is written as generators that yield a `Pace` whenever they cannot go on; whoever drives
them decides what to do meanwhile. Nothing here knows MPI.
"""

import os
from collections.abc import Callable, Generator
from enum import IntEnum
from typing import TypeVar

from acidmpi.clocks import Clock
from acidmpi.errors import DeadlineExceeded

T = TypeVar("T")


class Pace(IntEnum):
    """What a generator says of its wait when it yields."""

    HOT = 0
    """Bytes are moving; look again at once."""

    POLL = 1
    """Another rank has to act; look again soon, then less and less often."""

    IDLE = 2
    """The caller has to act, who will say so; look only for what never should come."""


Steps = Generator[Pace, None, T]
"""A piece of work that yields its pace and returns a `T`."""


class Backoff:
    """Sleeping times that grow from `shortest` to `longest` until progress resets them.

    Args:
        shortest_seconds: first sleep after progress.
        longest_seconds: bound on every sleep.
        growth: each sleep by the one before. With 1 + s a wait that ends after t
            seconds is noticed at most about s·t later.
    """

    def __init__(
        self, shortest_seconds: float, longest_seconds: float, growth: float = 2.0
    ) -> None:
        self._shortest = shortest_seconds
        self._longest = longest_seconds
        self._growth = growth
        self._next = shortest_seconds

    def reset(self) -> None:
        """Start again from the shortest sleep."""
        self._next = self._shortest

    def next(self) -> float:
        """Seconds to sleep now; the following call gives more, up to the bound."""
        seconds = self._next
        self._next = min(self._growth * seconds, self._longest)
        return seconds


class Deadline:
    """A moment after which a wait is given up.

    Args:
        seconds: how long the wait may take.
        clock: where time comes from.
        what: what is waited for; becomes the text of the error.
    """

    def __init__(self, seconds: float, clock: Clock, what: str) -> None:
        self.seconds = seconds
        """How long it may take."""
        self._clock = clock
        self._what = what
        self._end = clock.now() + seconds

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return self._clock.now() > self._end

    def renew(self) -> None:
        """Something moved: allow the full time again."""
        self._end = self._clock.now() + self.seconds

    def check(self) -> None:
        """Raise `DeadlineExceeded` once the moment is over."""
        if self.passed:
            raise DeadlineExceeded(
                f"no progress for {self.seconds:g} s in {self._what}; a rank has died or "
                "stands still (raise `deadline_seconds` if ranks are that slow)"
            )


def until(ready: Callable[[], bool], deadline: Deadline, pace: Pace) -> Steps[None]:
    """Yield `pace` until `ready()` says so or the deadline passes."""
    while not ready():
        deadline.check()
        yield pace


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
