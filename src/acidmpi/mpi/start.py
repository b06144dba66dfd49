"""The start of MPI where a rank may die in it.

MPI itself does not survive that: `MPI_Init` waits for ever. So who hears of a death before
MPI has started leaves, with a status that tells the launching script to start the ranks
again: nothing has been done yet that could be lost.
"""

import ctypes
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from acidmpi.mpi.leaving import (
    NOT_STARTED_STATUS,
    leave_now,
    somebody_has_told,
    somebody_is_gone,
)
from acidmpi.mpi.loaded import mpi_functions
from acidmpi.mpi.pmix import Death, DeathNotices

START_SECONDS = 120
"""How long MPI may take to start, the launcher's work included."""

LOOK_SECONDS = 0.02
"""Between looks: whether PMIx runs, whether there is news."""

CENSUS_SECONDS = 1.0
"""Between looks whether all processes of this node are there: news of one that dies before
others have connected is lost at times (Open MPI 5.0.11). Two looks in turn must find it."""

SETTLE_SECONDS = 0.3
"""After the first news: others may have died too."""

LATE = (
    "MPI did not start within {:g} s; a rank has died before it was ready, or the "
    "machine is too busy"
)

MULTIPLE = 3
"""MPI_THREAD_MULTIPLE of Open MPI, the one that survives deaths, and of the MPI 5 ABI."""


def start_mpi(seconds: float = START_SECONDS) -> None:
    """Start MPI, or end this process with `NOT_STARTED_STATUS`.

    It is not started by mpi4py, which would hold Python's lock meanwhile, so that nobody
    could hear of a death.

    Args:
        seconds: how long it may take.
    """
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI

    if MPI.Is_initialized():
        return
    os.environ["OMPI_MCA_mpi_initial_errhandler"] = "mpi_errors_return"  # noqa: SIM112
    provided = ctypes.c_int()
    with Watch(seconds):
        error = mpi_functions().MPI_Init_thread(
            None, None, MULTIPLE, ctypes.byref(provided)
        )
        if error:  # as when a rank dies that it has not met yet
            leave_now(
                f"MPI did not start (error {error}); a rank may have died meanwhile"
            )
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):  # as mpi4py does
            comm.Set_errhandler(MPI.ERRORS_RETURN)
        _meet(MPI)


def _meet(MPI: Any) -> None:
    """Wait for all ranks.

    One that dies in `MPI_Init` may not have said yet where it can be reached, and whoever
    writes to it then asks the launcher for ever (Open MPI 5.0.11, on several nodes).
    """
    try:
        MPI.COMM_WORLD.Barrier()
    except MPI.Exception as error:
        leave_now(f"MPI did not start ({error.Get_error_string()})")


class Watch:
    """Ends this process when a rank dies inside the block, or when it takes too long.

    A death that is heard of here MPI has not heard of, so it cannot go on even if it has
    started meanwhile.

    Two threads: one listens for deaths, which may block when the launcher hangs, one waits
    for news. They share a queue and an event with the block and with PMIx's thread, and
    need no other lock.

    Args:
        seconds: how long the block may take.
        notices: makes what hears of deaths, from the name of the job and what to call.
        leave: called with a message instead of ending the process.
    """

    def __init__(
        self,
        seconds: float,
        notices: Callable[..., DeathNotices] = DeathNotices,
        leave: Callable[[str], object] = leave_now,
    ) -> None:
        self._seconds = seconds
        self._news: queue.SimpleQueue[Death] = queue.SimpleQueue()
        self._notices = notices(os.environ.get("PMIX_NAMESPACE", ""), self._news.put)
        self._leave = leave
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._listener.start()
        self._watcher.start()

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._watcher.join()
        self._listener.join(self._seconds)
        if self._listener.is_alive():
            self._leave(LATE.format(self._seconds))
        elif not self._news.empty():
            self._leave(self._told())

    def _listen(self) -> None:
        while not self._notices.begin() and not self._over.wait(LOOK_SECONDS):
            pass
        self._over.wait()
        self._notices.end()

    def _watch(self) -> None:
        began = time.monotonic()
        censuses, gone = 0, 0
        while self._news.empty() and not somebody_has_told() and gone < 2:
            if self._over.wait(LOOK_SECONDS):
                break
            passed = time.monotonic() - began
            if passed > self._seconds:
                self._leave(LATE.format(self._seconds))
                return
            if passed > (censuses + 1) * CENSUS_SECONDS:
                censuses += 1
                gone = gone + 1 if somebody_is_gone() else 0
        over = self._over.wait(SETTLE_SECONDS)
        if not over or not self._news.empty():
            self._leave(self._told())

    def _told(self) -> str:
        statuses = {}
        while not self._news.empty():
            death = self._news.get()
            statuses[death.rank] = death.status
        # Who left with this status had heard of a death before.
        died = [item for item in statuses.items() if item[1] != NOT_STARTED_STATUS]
        who = ", ".join(f"rank {rank}{_how(s)}" for rank, s in sorted(died)) or "a rank"
        return f"{who} died before MPI was ready, which MPI does not survive"


def _how(status: int | None) -> str:
    if status is None:
        return ""
    return f" (signal {status - 128})" if status > 128 else f" (exit status {status})"
