"""Collective operations whose waits end: polled, with a deadline, never blocking.

Every function here is collective over `comm` and must be called by all its ranks.
"""

import logging
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.clocks import WallClock
from acidmpi.errors import AcidError, DisagreementError, RemoteError
from acidmpi.progress import Backoff, Deadline
from acidmpi.progress.limits import SHORTEST_STALL_SECONDS as SHORTEST
from acidmpi.progress.limits import Limits

SHORTEST_SLEEP_SECONDS = 20e-6
LONGEST_SLEEP_SECONDS = 5e-3
GROWTH = 1.1
"""A collective goes through many ranks, one after the other: each that oversleeps adds to
the whole. With sleeps that double, and one look each, opening and closing a worker on 7
ranks of MPICH took 855 ms instead of 71."""
LOOKS = 4
"""Several steps of a collective may be ready at once, and a look takes one."""
MOST_DIFFERENCES = 5

_GIVEN_UP: list[MPI.Request] = []
"""Operations nobody waits for any more: kept, because MPI may write to their buffers."""

_watches: list[Callable[[], None]] = []
"""What looks for deaths while this thread waits; the innermost one counts. Owned by the
thread that calls collectives, the caller's."""


@contextmanager
def watching(check: Callable[[], None]) -> Iterator[None]:
    """Let every wait inside the block call `check`, which may raise to end it.

    A rank may wait for a living one that has given up because a third one died.
    """
    _watches.append(check)
    try:
        yield
    finally:
        _watches.pop()


def complete(request: MPI.Request, seconds: float, what: str) -> None:
    """Wait for `request` politely; a wait that gets long is told.

    Args:
        request: a non-blocking operation.
        seconds: how long it may take.
        what: what it does, for the error.

    Raises:
        DeadlineExceeded: it took longer.
    """
    deadline = Deadline(seconds, WallClock(), what)
    stall = Deadline(max(Limits(seconds).stall_seconds, SHORTEST), WallClock(), what)
    backoff = Backoff(SHORTEST_SLEEP_SECONDS, LONGEST_SLEEP_SECONDS, GROWTH)
    try:
        while not any(request.Test() for _ in range(LOOKS)):
            deadline.check()
            if stall.passed:
                stall = _tell_stall(stall, what)
            for check in _watches[-1:]:
                check()
            time.sleep(backoff.next())
    except BaseException:
        _GIVEN_UP.append(request)
        raise


def _tell_stall(stall: Deadline, what: str) -> Deadline:
    """Say that a wait is long; returns when to say so again, after twice the time.

    Two ranks do it: if one of them is the one that does not come, the other one will.
    """
    rank = MPI.COMM_WORLD.rank
    if rank < 2:
        text = "acidmpi: rank %d has waited %g s for %s; some rank has not come yet"
        logging.getLogger("acidmpi").warning(text, rank, stall.seconds, what)
    return Deadline(2 * stall.seconds, WallClock(), what)


def allgather(comm: MPI.Comm, value: Any, seconds: float, what: str) -> list[Any]:
    """Every rank's `value`, by rank. Values travel pickled."""
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = np.empty(comm.size, np.int64)
    complete(comm.Iallgather(np.array([mine.size], np.int64), sizes), seconds, what)
    everything = np.empty(int(sizes.sum()), np.uint8)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    request = comm.Iallgatherv(mine, [everything, sizes, starts[:-1], MPI.BYTE])
    complete(request, seconds, what)
    return [
        pickle.loads(everything[starts[r] : starts[r + 1]].tobytes())
        for r in range(comm.size)
    ]


def broadcast(comm: MPI.Comm, value: Any, seconds: float, what: str) -> Any:
    """Rank 0's `value` on every rank. It travels pickled; other ranks' is ignored."""
    data = np.frombuffer(pickle.dumps(value), np.uint8).copy()
    size = np.array([data.size], np.int64)
    complete(comm.Ibcast(size, root=0), seconds, what)
    data = data if comm.rank == 0 else np.empty(int(size[0]), np.uint8)
    complete(comm.Ibcast(data, root=0), seconds, what)
    return pickle.loads(data.tobytes())


def agree(comm: MPI.Comm, error: Exception | None, seconds: float) -> None:
    """Go on only where all can: raise on every rank when any has an error.

    Raises:
        Exception: this rank's own `error`, or `RemoteError` naming the first rank
            that has one.
    """
    text = None if error is None else describe(error)
    texts = allgather(comm, text, seconds, "the check that every rank can start")
    if error is not None:
        raise error
    failed = next((r for r, t in enumerate(texts) if t is not None), None)
    if failed is not None:
        raise RemoteError(failed, texts[failed])


@contextmanager
def agreeing(comm: MPI.Comm, seconds: float) -> Iterator[None]:
    """Run a block that is local to each rank; afterwards go on only where all can.

    Raises:
        Exception: what the block raised here, or `RemoteError` naming the first rank
            whose block did.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # every rank has to hear of it before it is raised
        failure = error
    agree(comm, failure, seconds)


@contextmanager
def confessing(comm: MPI.Comm, seconds: float) -> Iterator[None]:
    """Run a block that is local to each rank, with a `check_same` right behind it.

    What fails here is told to the others in place of that: they raise
    `DisagreementError` there. Where nothing fails it costs nothing.
    """
    try:
        yield
    except Exception as error:
        with suppress(DisagreementError):
            check_same(comm, {"an error": describe(error)}, seconds)
        raise


def describe(error: BaseException) -> str:
    """One line for another rank to print: own errors as they read, others with a type."""
    if isinstance(error, AcidError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def check_same(comm: MPI.Comm, values: dict[str, str], seconds: float) -> None:
    """Raise on every rank when ranks disagree, and say who differs in what.

    The value that most ranks hold is taken as meant; on a tie, the lowest rank's.

    Args:
        comm: the communicator.
        values: what must be the same everywhere, by name.
        seconds: how long the comparison may take.

    Raises:
        DisagreementError: at least one rank differs.
    """
    everyone = allgather(comm, values, seconds, "the check that ranks agree")
    keys = dict.fromkeys(key for held in everyone for key in held)
    lines = [line for key in keys for line in _differences(key, everyone)]
    if len(lines) > MOST_DIFFERENCES:
        more = len(lines) - MOST_DIFFERENCES
        lines = [*lines[:MOST_DIFFERENCES], f"and {more} more differences"]
    if lines:
        raise DisagreementError(
            "all ranks must agree; "
            + "; ".join(lines)
            + "; start every rank with the same program and options"
        )


def _differences(key: str, everyone: list[dict[str, str]]) -> list[str]:
    """One line for each value of `key` that is not the common one."""
    held = [v.get(key, "nothing") for v in everyone]
    common = Counter(held).most_common(1)[0][0]
    others = sorted(set(held) - {common})
    return [
        f"rank {', '.join(str(r) for r, h in enumerate(held) if h == value)} has "
        f"{key} = {value}, others {common}"
        for value in others
    ]
