"""The communicators that one worker owns.

Ownership: `Communicators.open` duplicates the caller's communicator once per purpose, so
that a tag of one purpose never matches a message of another, nor one of the caller's;
`close` frees them. The caller's communicator is used for the duplication only, and MPI is
never started nor finalised here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from mpi4py import MPI

from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import agree, complete

_INSTANCE = count()
PURPOSES = ("control", "data", "heartbeat", "collective")
REFUSAL_SECONDS = 300.0


@dataclass(frozen=True)
class Communicators:
    """Duplicates of one communicator, by purpose."""

    control: MPI.Comm
    """Handshakes and notices of the communication loop."""

    data: MPI.Comm
    """Chunks of parameters."""

    heartbeat: MPI.Comm
    """Counters of all ranks, one small reduction at a time."""

    collective: MPI.Comm
    """Start, averages and end."""

    @classmethod
    def open(cls, comm: MPI.Comm, seconds: float) -> "Communicators":
        """Duplicate `comm` for each purpose; collective over `comm`.

        Raises:
            ConfigError: `comm` is not an intracommunicator.
            DeadlineExceeded: some rank did not take part within `seconds`.
        """
        if not isinstance(comm, MPI.Comm) or comm == MPI.COMM_NULL or comm.is_inter:
            raise ConfigError(
                f"comm must be an mpi4py intracommunicator, got {comm!r}; pass "
                "mpi4py.MPI.COMM_WORLD or a communicator split from it"
            )
        number = next(_INSTANCE)
        return cls(*(duplicate(comm, f"{p}{number}", seconds) for p in PURPOSES))

    def close(self) -> None:
        """Free all of them; no operation may be pending."""
        for purpose in PURPOSES:
            getattr(self, purpose).Free()


@contextmanager
def told_to_all(comm: MPI.Comm) -> Iterator[None]:
    """Run this rank's own part of a start; if it fails, the others raise, too.

    They are expected in `Communicators.open` and then in `agree`. Collective over `comm`
    in case of failure, and by itself silent otherwise.
    """
    try:
        yield
    except Exception as error:
        comms = Communicators.open(comm, REFUSAL_SECONDS)
        try:
            agree(comms.collective, error, REFUSAL_SECONDS)
        finally:
            comms.close()


def duplicate(comm: MPI.Comm, name: str, seconds: float) -> MPI.Comm:
    """A copy of `comm`, named for those who debug; collective over `comm`.

    Raises:
        DeadlineExceeded: some rank did not take part within `seconds`.
    """
    copy, request = comm.Idup()
    complete(request, seconds, "duplicating the communicator")
    copy.Set_name(f"acidmpi.{name}")
    copy.Set_errhandler(MPI.ERRORS_RETURN)
    return copy
