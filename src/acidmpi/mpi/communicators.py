"""The communicators that one worker owns.

Ownership: `Communicators.open` duplicates the caller's communicator once per purpose, so
that a tag of one purpose never matches a message of another, nor one of the caller's;
`close` frees them. The caller's communicator is used for the first duplication only, and
MPI is never started nor finalised here. Ranks that may die have one duplicate for all
purposes, whose tags differ.

Every start begins alike, on all ranks: `collective` is duplicated, and on it the ranks tell
each other whether all of them can go on. So a rank that cannot even begin, `told_to_all`,
need not know what the others would have gone on with.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from mpi4py import MPI

from acidmpi.errors import ConfigError, DeadlineExceeded
from acidmpi.mpi.collectives import agree, complete

_INSTANCE = count()
PURPOSES = ("control", "data", "heartbeat")
"""What may be asked for beside `collective`, which is always there."""

REFUSAL_SECONDS = 300.0


@dataclass(frozen=True)
class Communicators:
    """Duplicates of one communicator, by purpose; null where none was asked for."""

    collective: MPI.Comm
    """Start, averages and end."""

    control: MPI.Comm
    """Handshakes and notices of the communication loop."""

    data: MPI.Comm
    """Chunks of parameters."""

    heartbeat: MPI.Comm
    """Counters of all ranks, one small reduction at a time."""

    @classmethod
    def open(
        cls,
        comm: MPI.Comm,
        seconds: float,
        purposes: Sequence[str] = PURPOSES,
        *,
        mortal: bool = False,
    ) -> "Communicators":
        """Duplicate `comm` for each purpose, once all ranks can start; collective.

        Args:
            comm: the caller's.
            seconds: how long each step may take.
            purposes: some of `PURPOSES`, on all ranks the same.
            mortal: ranks may die: one duplicate is for all purposes, because Open MPI
                5.0.11 crashes when it hears of a death while it makes a communicator.

        Raises:
            ConfigError: `comm` is not an intracommunicator.
            DeadlineExceeded: some rank did not take part within `seconds`.
            RemoteError: another rank cannot start.
        """
        number = next(_INSTANCE)
        collective = _start(comm, number, seconds, None)
        if mortal:
            return cls(*[collective] * 4)
        others = dict.fromkeys(PURPOSES, MPI.COMM_NULL)
        for purpose in purposes:
            others[purpose] = duplicate(collective, f"{purpose}{number}", seconds)
        return cls(collective, **others)

    def close(self) -> None:
        """Free all of them; no operation may be pending."""
        for comm in (self.collective, self.control, self.data, self.heartbeat):
            if comm != MPI.COMM_NULL:
                comm.Free()


@contextmanager
def told_to_all(comm: MPI.Comm) -> Iterator[None]:
    """Run this rank's own part of a start; if it fails, the others raise, too.

    They are expected in `Communicators.open`. Collective over `comm` in case of failure,
    and by itself silent otherwise.
    """
    try:
        yield
    except Exception as error:
        _start(comm, next(_INSTANCE), REFUSAL_SECONDS, error)


def _start(
    comm: MPI.Comm, number: int, seconds: float, error: Exception | None
) -> MPI.Comm:
    """Duplicate `comm` and agree on it that all ranks can start; else raise on all."""
    if not isinstance(comm, MPI.Comm) or comm == MPI.COMM_NULL or comm.is_inter:
        raise ConfigError(
            f"comm must be an mpi4py intracommunicator, got {comm!r}; pass "
            "mpi4py.MPI.COMM_WORLD or a communicator split from it"
        )
    # Together, so that it takes a millisecond: see `mortal` for what may happen in it.
    complete(comm.Ibarrier(), seconds, "the start of all ranks")
    collective = duplicate(comm, f"collective{number}", seconds)
    try:
        agree(collective, error, seconds)
    except DeadlineExceeded:  # an operation is pending on it
        raise
    except BaseException:
        collective.Free()
        raise
    return collective


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
