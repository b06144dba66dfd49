"""Signals ask a run to end; a second one ends the process at once.

SIGINT (Ctrl-C) asks for the end; SIGTERM and SIGUSR1 ask for a checkpoint, too: they mean
that the machine is needed for something else. Of two kinds the first one counts.

The signal is seen by a thread, not between two bytecodes of the main thread, because
the main thread may be inside a long computation or an MPI call, and a launcher may
allow a fraction of a second before it kills (Open MPI 5: a quarter).
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from acidmpi.errors import Interrupted, Preempted

INTERRUPTED_STATUS = 130
"""Exit status of a run that a signal has ended."""

PREEMPTED_STATUS = 75
"""Exit status of a run that a signal has ended with a checkpoint: what `sysexits.h` calls
a temporary failure, to be tried again."""

PREEMPTING = (signal.SIGTERM, signal.SIGUSR1)
SIGNALS = (signal.SIGINT, *PREEMPTING)
SAME_REQUEST_SECONDS = 0.3
"""Signals closer than this are one request: launchers may send two for one Ctrl-C."""


class SignalWatch:
    """Listens for signals while it is entered.

    Args:
        leave: ends the process with a status; another one in tests.
    """

    def __init__(self, leave: Callable[[int], Any] = os._exit) -> None:
        self._leave = leave
        self._first_seconds: float | None = None
        self.preempted = False
        """Whether the signal wants a checkpoint; set before actions are called."""
        self._then: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._previous: dict[int, Any] = {}
        self._reader, self._writer = socket.socketpair()
        self._thread = threading.Thread(
            target=self._run, name="acidmpi-signals", daemon=True
        )

    @property
    def requested(self) -> bool:
        """Whether a signal has asked for the end."""
        return self._first_seconds is not None

    def check(self) -> None:
        """Raise `Interrupted` or `Preempted` if a signal has asked for the end."""
        if self.requested and self.preempted:
            raise Preempted("preempted by a signal before there was anything to keep")
        if self.requested:
            raise Interrupted("interrupted by a signal")

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when the end is asked for, in another thread; now if it was."""
        with self._lock:
            self._then.append(action)
            late = self.requested
        if late:
            action()

    def forget(self) -> None:
        """Call none of the actions named so far."""
        with self._lock:
            self._then.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        if threading.current_thread() is threading.main_thread():
            self._writer.setblocking(False)
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, _ignore)
            self._earlier = signal.set_wakeup_fd(
                self._writer.fileno(), warn_on_full_buffer=False
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._earlier)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while received := self._reader.recv(64):
            asked = [number for number in received if number in SIGNALS]
            if asked:
                self._signalled(asked[0], time.monotonic())

    def _signalled(self, number: int, now: float) -> None:
        if self._first_seconds is not None:
            if now - self._first_seconds > SAME_REQUEST_SECONDS:
                self._leave(INTERRUPTED_STATUS)
            return
        with self._lock:
            self.preempted = number in PREEMPTING
            self._first_seconds = now
            actions = list(self._then)
        for action in actions:
            action()


def _ignore(number: int, frame: object) -> None:
    """The signal is read from the wake-up descriptor; Python must not act on it."""
