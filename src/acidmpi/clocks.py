"""Where seconds come from: a real clock, or one that a test moves by hand.

Nobody else in the package asks the operating system for the time of an event; a clock is
passed in, so that protocols can be tested without waiting.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic seconds; the origin is arbitrary."""

    def now(self) -> float:
        """Seconds since the clock's origin."""
        ...


class WallClock:
    """The machine's monotonic clock."""

    now = staticmethod(time.perf_counter)
    """Seconds since an arbitrary origin; never goes back."""


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def now(self) -> float:
        """Seconds set so far."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`, which must not be negative."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back, got {seconds=}")
        self._seconds += seconds
