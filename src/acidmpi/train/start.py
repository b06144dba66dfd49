"""The start and the end of MPI where a rank may die in them.

MPI itself does not survive that: `MPI_Init` and `MPI_Finalize` wait for ever, and no
thread of Python runs meanwhile.
"""

import faulthandler
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 120
"""How long MPI may take to start, the launcher's work included."""

END_SECONDS = 10
"""How long MPI may take to end once all is done and written."""

END_AFTER_DEATHS_SECONDS = 2
"""The same where somebody has died: then it waits for ever at times (Open MPI 5.0.11)."""

LEAVE_SECONDS = 0.5
"""Between the message and the end of the process."""


@contextmanager
def bounded_start(seconds: float, speaks: bool) -> Iterator[None]:
    """End this process with status 1 when the block takes longer.

    A small process beside this one tells why, because this one cannot.

    Args:
        seconds: how long the block may take.
        speaks: whether this rank tells.
    """
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(
            seconds + LEAVE_SECONDS, exit=True, file=nowhere
        )
        end = _tell_after(seconds) if speaks else None
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            if end is not None:
                os.close(end[0])
                os.waitpid(end[1], 0)


def _tell_after(seconds: float) -> tuple[int, int]:
    """Start a process that tells; it ends when the descriptor returned is closed."""
    text = (
        f"acidmpi: error: MPI did not start within {seconds:g} s; a rank has died before "
        "it was ready, or the machine is too busy: start the job again\n"
    )
    sys.stderr.flush()
    waiting, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        if not select.select([waiting], [], [], seconds)[0]:
            os.write(2, text.encode())
        os._exit(0)
    os.close(waiting)
    return end, child
