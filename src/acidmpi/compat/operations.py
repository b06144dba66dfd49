"""Collective operations that are called one by one, and may be waited for later.

The packages whose API this is match operations of ranks by name, with a coordinator.
MPI matches them by order, so ranks must call the same operations in the same order.
Before each, ranks compare what they are about to do; a difference is an error on all of
them instead of a wrong result or a wait without an end.

Guarantees:
- operations run one after the other, in the order of their calls, on one communicator;
- progress is made in `start`, `poll` and `wait` only;
- a failure of one operation is raised where it is waited for, and those behind it go on;
  one that keeps a rank from beginning is an error of the others, too;
  after a missed deadline nothing more is started, and everything raises.

One lock guards the queue, so that hooks of a backward pass may call from their own
threads. It is held while a finished operation writes its result, but not while waiting.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.clocks import WallClock
from acidmpi.errors import DeadlineExceeded, DisagreementError
from acidmpi.mpi.collectives import check_same, describe
from acidmpi.mpi.reductions import Comm, Request
from acidmpi.mpi.world import start_gather
from acidmpi.progress import Deadline

SHORTEST_SLEEP_SECONDS = 1e-5
LONGEST_SLEEP_SECONDS = 5e-3
SLEPT_OF_WAITED = 0.1
"""A sleep is this part of the wait so far: what it adds to a short wait is short."""

JOIN = "join"
STEP = "step of optimizer "

Integers = NDArray[np.int64]
Work = Generator[Request, None, Any]
"""An operation: it yields requests, is resumed as each completes, and returns a result."""

Exchange = Generator[Request, None, Integers]


class Operation:
    """One operation: what Horovod calls a handle.

    Args:
        what: what it does, for errors.
        work: how it does it.
    """

    def __init__(self, what: str, work: Work) -> None:
        self.what = what
        self.done = False
        self._work = work
        self._request: Request | None = None
        self._result: Any = None
        self._error: Exception | None = None

    def advance(self) -> bool:
        """Go on as far as possible without waiting; tells whether it has ended."""
        while not self.done and (self._request is None or self._request.Test()):
            try:
                self._request = next(self._work)
            except StopIteration as end:
                self._end(end.value, None)
            except Exception as error:  # it is raised where the result is asked for
                self._end(None, error)
        return self.done

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def fail(self, error: Exception) -> None:
        """Never go on; its buffers stay alive as long as it does."""
        if not self.done:
            self._end(None, error)

    def _end(self, result: Any, error: Exception | None) -> None:
        self._result, self._error, self.done = result, error, True


class Operations:
    """The operations of one process on one communicator.

    Args:
        comm: a communicator that nobody else uses.
        seconds: how long a wait may take.
    """

    def __init__(self, comm: Comm, seconds: float) -> None:
        self.comm = comm
        self.seconds = seconds
        self._queue: deque[Operation] = deque()
        self._lock = RLock()
        self._abandoned: list[Operation] = []
        self._broken: Exception | None = None

    @property
    def broken(self) -> bool:
        """Whether a deadline was missed: messages may be pending for ever."""
        return self._broken is not None

    def start(self, what: str, work: Work) -> Operation:
        """Queue an operation and begin it if it is its turn."""
        operation = Operation(what, work)
        with self._lock:
            if self._broken is not None:
                raise self._broken
            self._queue.append(operation)
            self._advance()
        return operation

    def poll(self, operation: Operation) -> bool:
        """Make progress; tells whether `operation` has ended."""
        with self._lock:
            self._advance()
        return operation.done

    def wait(self, operation: Operation) -> Any:
        """Wait for `operation` and return its result.

        Raises:
            DeadlineExceeded: it did not end in time.
            DisagreementError: another rank called something else.
        """
        clock = WallClock()
        deadline = Deadline(self.seconds, clock, operation.what)
        start = clock.now()
        while not self.poll(operation):
            if deadline.passed:
                self._abandon(deadline)
            else:
                time.sleep(sleep_seconds(clock.now() - start))
        return operation.result()

    def run(self, what: str, work: Work) -> Any:
        """Start an operation and wait for it."""
        return self.wait(self.start(what, work))

    def drain(self) -> None:
        """Wait until everything that was started has ended, well or not."""
        with self._lock:
            last = self._queue[-1] if self._queue else None
        if last is not None:
            with suppress(Exception):  # it is raised where its result is asked for
                self.wait(last)

    def _advance(self) -> None:
        while self._queue and self._queue[0].advance():
            self._queue.popleft()

    def _abandon(self, deadline: Deadline) -> None:
        """Fail everything: MPI may still write to what has been posted."""
        with self._lock:
            try:
                deadline.check()
            except DeadlineExceeded as error:
                self._broken = error
                for operation in self._queue:
                    operation.fail(error)
            self._abandoned.extend(self._queue)
            self._queue.clear()


def sleep_seconds(waited: float) -> float:
    """How long to sleep after having waited for so many seconds."""
    return min(
        max(SLEPT_OF_WAITED * waited, SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS
    )


def agreed(comm: Comm, what: str, number: int, seconds: float) -> Exchange:
    """Compare `what` with the other ranks, and return everyone's `number`.

    Raises:
        DisagreementError: ranks are about to do different things.
    """
    everyone = yield from _tell(comm, what, number)
    if (everyone[:, 0] != everyone[comm.rank, 0]).any():
        _refuse(comm, what, seconds)
    return everyone[:, 1].copy()


def told(comm: Comm, what: str, work: Work, seconds: float) -> Work:
    """`work`; what keeps this rank from beginning it is told to the others in its place.

    Raises:
        DisagreementError: another rank could not begin.
    """
    try:
        first = next(work)
    except Exception as error:
        with suppress(DisagreementError):
            failure = f"{what}, which failed: {describe(error)}"
            yield from agreed(comm, failure, 0, seconds)
        raise
    yield first
    return (yield from work)


def step_agreed(comm: Comm, number: int, seconds: float) -> Work:
    """Like `agreed` before step of optimizer `number`, but ranks may have joined."""
    what = f"{STEP}{number}"
    everyone = yield from _tell(comm, what, 0)
    if not set(everyone[:, 0].tolist()) <= {digest(what), digest(JOIN)}:
        _refuse(comm, what, seconds)


def joined(
    comm: Comm, steps: Iterable[Callable[[], None]], seconds: float
) -> Generator[Request, None, int]:
    """Take part in the others' steps until everyone has joined.

    Args:
        comm: the communicator.
        steps: for each optimizer, what contributes nothing to one of its steps.
        seconds: how long the comparison of a failure may take.

    Returns:
        The highest of the ranks that joined last.
    """
    known = {digest(f"{STEP}{k}"): step for k, step in enumerate(steps)}
    fresh = 1
    while True:
        everyone = yield from _tell(comm, JOIN, fresh)
        fresh = 0
        others = set(everyone[:, 0].tolist()) - {digest(JOIN)}
        if not others:
            return int(np.flatnonzero(everyone[:, 1])[-1])
        if len(others) > 1 or not others <= set(known):
            _refuse(comm, JOIN, seconds)
        known[others.pop()]()


def digest(what: str) -> int:
    """A number that stands for `what`; equal texts have equal ones."""
    code = hashlib.blake2b(what.encode(), digest_size=8).digest()
    return int.from_bytes(code, "little", signed=True)


def _tell(comm: Comm, what: str, number: int) -> Exchange:
    mine = np.array([digest(what), number], np.int64)
    everyone = np.empty((comm.size, 2), np.int64)
    yield start_gather(comm, mine, everyone)
    return everyone


def _refuse(comm: Comm, what: str, seconds: float) -> None:
    check_same(comm, {"the collective operation called": what}, seconds)
