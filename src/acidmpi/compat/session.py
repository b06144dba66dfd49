"""What `init()` opens and `shutdown()` closes.

The packages whose API this is know one group of processes, MPI_COMM_WORLD unless told
otherwise, and keep it for the whole process. This is the only place of acidmpi that does
so; MPI itself is started and finalised by mpi4py.
"""

import atexit
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from acidmpi.compat.last_words import LastWords
from acidmpi.compat.operations import Operations, agreed
from acidmpi.compat.places import Place, find_place
from acidmpi.errors import (
    AcidError,
    ConfigError,
    DeadlineExceeded,
    DisagreementError,
)
from acidmpi.mpi.collectives import allgather
from acidmpi.mpi.communicators import Communicators
from acidmpi.mpi.reductions import Comm
from acidmpi.mpi.threads import ProgressMode, thread_level
from acidmpi.mpi.world import host_name, world

DEADLINE_SECONDS = 1800.0
"""How long any wait may take; scripts let rank 0 evaluate or save alone meanwhile."""


class Closable(Protocol):
    """An optimizer of ours."""

    def close(self) -> None:
        """Stop its thread and give its communicators back."""
        ...


class Session:
    """The ranks that a script works with; collective to make.

    Args:
        comm: the communicator; it is duplicated.
        seconds: how long a wait may take.
    """

    def __init__(self, comm: Comm, seconds: float = DEADLINE_SECONDS) -> None:
        self._comms = Communicators.open(comm, seconds, ["control", "heartbeat"])
        self.comm: Comm = self._comms.collective
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.seconds = seconds
        self.operations = Operations(self._comms.control, seconds)
        self.optimizers: list[Closable] = []
        """All that were made, closed at the end; in the same order on all ranks."""
        self.empty_steps: list[Callable[[], None]] = []
        """For each that ranks may leave early, what contributes nothing to a step."""
        hosts = allgather(self.comm, host_name(), seconds, "finding the machines")
        self.place: Place = find_place(hosts, self.rank)
        self._last_words = LastWords(self._comms.heartbeat)
        self._last_words.listen()

    @property
    def progress(self) -> ProgressMode:
        """How optimizers make progress: by a thread, wherever MPI allows it."""
        return "thread" if thread_level() == "MPI_THREAD_MULTIPLE" else "inline"

    def meet(self, what: str) -> None:
        """Begin a collective that has messages of its own, all operations having ended.

        Otherwise a rank could wait in it for one that waits for an operation.

        Raises:
            DisagreementError: another rank calls something else.
        """
        comm = self.operations.comm
        self.operations.run(what, agreed(comm, what, 0, self.seconds))

    def meet_to_end(self) -> None:
        """Wait until every rank ends; what another one still begins fails there."""
        self.operations.drain()
        while not self.operations.broken:
            with suppress(DisagreementError, DeadlineExceeded):
                self.meet("shutdown")
                break

    def close(self) -> None:
        """Close the optimizers and free the communicators; collective.

        After a failure communicators are left to MPI, because messages may be pending.
        """
        self._last_words.ignore()
        self.operations.drain()
        failed = self.operations.broken
        for optimizer in self.optimizers:
            try:
                optimizer.close()
            except AcidError:  # it has been raised before, where it happened
                failed = True
        if not failed:
            self._comms.close()


class Holder:
    """Keeps the one session of a foreign package; used by one thread.

    Args:
        package: its name, for errors.
        lazy: open the session on first use, as a package without `init` does.
    """

    def __init__(self, package: str, *, lazy: bool) -> None:
        self._package = package
        self._lazy = lazy
        self._session: Session | None = None

    @property
    def open(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    @property
    def session(self) -> Session:
        """The session.

        Raises:
            ConfigError: `init` has not been called.
        """
        if self._session is None and self._lazy:
            self.init(None)
        if self._session is None:
            raise ConfigError(
                f"{self._package} must be initialised before it is used, and is not; "
                "call init() on every rank first"
            )
        return self._session

    def init(self, comm: Comm | None) -> None:
        """Open the session on `comm`, or on MPI_COMM_WORLD; nothing if it is open."""
        if self._session is None:
            self._session = Session(world() if comm is None else comm)
            atexit.register(self.shutdown)

    def shutdown(self) -> None:
        """Close the session, if there is one. MPI goes on."""
        atexit.unregister(self.shutdown)
        session, self._session = self._session, None
        if session is None:
            return
        if not self._lazy:  # else steps are not announced: the others are in their own
            session.meet_to_end()
        session.close()
