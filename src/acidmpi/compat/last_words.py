"""An exception that ends one rank ends all."""

import sys
from contextlib import suppress
from types import TracebackType

from acidmpi.mpi.reductions import Comm


class LastWords:
    """Ends all ranks once an uncaught exception has been printed.

    The others would wait for this rank's share in vain until their deadline, and this one
    for them in MPI_Finalize. On one rank it does nothing.

    Args:
        comm: whose ranks are ended, by MPI_Abort.
    """

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._active = False
        self._before = sys.excepthook

    def listen(self) -> None:
        """Stand before the present hook for uncaught exceptions."""
        self._active = self._comm.size > 1
        self._before = sys.excepthook
        sys.excepthook = self._speak

    def ignore(self) -> None:
        """Pass exceptions on, from now on; step back, if nobody else came in front."""
        self._active = False
        if sys.excepthook == self._speak:
            sys.excepthook = self._before

    def _speak(
        self,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        self._before(kind, error, trace)
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        if self._active:
            self._comm.Abort(1)
