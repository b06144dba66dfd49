"""A thread that writes one set's part after the other, while training goes on.

Shared: `ended` and `kept` are written by the thread alone and read by whoever sends the
sums; a reader may see them one moment late. Jobs pass through a queue.
"""

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Writer:
    """Does jobs in order, in a daemon thread that starts with the first one.

    Args:
        tell: called, in the thread, with each error of a job.
    """

    def __init__(self, tell: Callable[[Exception], None]) -> None:
        self._tell = tell
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self.ended = 0
        """Parts of sets that were written or failed."""
        self.kept = False
        """Whether the last of them is on disk."""

    def part(self, job: Job) -> None:
        """Write a part of a set."""
        self._put(lambda: self._end(self._attempt(job)))

    def chore(self, job: Job) -> None:
        """Do something that nobody counts."""
        self._put(lambda: self._attempt(job))

    def finish(self) -> None:
        """Return when all jobs are done; further ones may follow."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _put(self, job: Callable[[], object]) -> None:
        self._jobs.put(job)  # type: ignore[arg-type]
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="acidmpi-checkpoint", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _attempt(self, job: Job) -> bool:
        try:
            job()
        except Exception as error:  # whatever it is, training goes on
            self._tell(error)
            return False
        return True

    def _end(self, kept: bool) -> None:
        self.kept = kept
        self.ended += 1
