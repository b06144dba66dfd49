"""Deaths as MPI tells of them (ULFM): who died, and collectives that survive it.

What is relied on, of User Level Failure Mitigation as Open MPI 5 has it (started with
`mpiexec --with-ft ulfm`):
- the launcher tells every survivor of a death, soon; `Failures` asks for the news;
- an operation with a dead rank ends with an error, and a receive from anybody says once
  that somebody has died, and goes on after that has been acknowledged;
- ranks of which none has died go on to exchange messages on the same communicator;
- `Shrink` and `Agree` give all survivors the same result, whoever dies meanwhile.

What is not: the collectives that MPI offers for a communicator in which somebody has
died, and `Ishrink`, which Open MPI 5.0.11 ends with an internal error.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Generic, NamedTuple, TypeVar

from mpi4py import MPI

from acidmpi.errors import ConfigError, DeadlineExceeded, PeerDied
from acidmpi.mpi.collectives import watching

T = TypeVar("T")

ENABLED = "OMPI_MCA_mpi_ft_enable"
"""What `mpiexec --with-ft ulfm` sets for its ranks."""

DEATHS = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)

CURE = (
    "start it with `mpiexec --with-ft ulfm` of Open MPI 5, or leave out the option and "
    "keep checkpoints to start again from"
)


def check_survivable() -> None:
    """Raise unless this MPI lets the others go on when a rank dies.

    Raises:
        ConfigError: it ends the whole job.
        ThreadLevelError: see `acidmpi.mpi.threads`; not checked here.
    """
    name, version = MPI.get_vendor()
    if name != "Open MPI" or version[0] < 5:
        text = ".".join(str(part) for part in version)
        raise ConfigError(
            "surviving the death of a rank needs an MPI with ULFM, this one is "
            f"{name} {text}, which ends all ranks when one dies; {CURE}"
        )
    if os.environ.get(ENABLED, "0").lower() not in ("1", "true", "t", "yes", "y"):
        raise ConfigError(
            "surviving the death of a rank needs an MPI with ULFM, and this Open MPI was "
            f"started without it ({ENABLED} is not 1); {CURE}"
        )


def is_death(error: MPI.Exception) -> bool:
    """Whether MPI says that a rank has died, or that another one has noticed."""
    return error.Get_error_class() in DEATHS


class Failures:
    """Whom MPI knows to be dead, in the numbers of one communicator.

    Asking costs a fraction of a microsecond. Any thread may ask.

    Args:
        comm: the ranks.
        what: what one waits for who calls `check`.
    """

    def __init__(self, comm: MPI.Comm, what: str = "all ranks") -> None:
        self._comm = comm
        self._what = what
        self._known = 0

    def news(self) -> list[int]:
        """Ranks that have died since the last call."""
        group = self._comm.Get_failed()
        try:
            if group.size == self._known:
                return []
            fresh = list(range(self._known, group.size))
            self._known = group.size
            return MPI.Group.Translate_ranks(group, fresh, self._comm.group)
        finally:
            group.Free()

    def check(self) -> None:
        """Raise if somebody has died since the last call.

        Raises:
            PeerDied: somebody has.
        """
        for rank in self.news():
            raise PeerDied(rank, self._what)


@contextmanager
def alert(comm: MPI.Comm, what: str) -> Iterator[None]:
    """Let no wait inside the block outlast a death.

    Raises:
        PeerDied: a rank of `comm` has died.
    """
    failures = Failures(comm, what)
    try:
        with watching(failures.check):
            yield
    except MPI.Exception as error:
        failures.check()  # a death has many faces: Idup calls it an internal error
        if not is_death(error):
            raise
        raise PeerDied(-1, what) from error


class Survivors(NamedTuple):
    """The ranks that took part in a stage."""

    comm: MPI.Comm
    """They alone; until the stage is over, see `together`."""

    ranks: tuple[int, ...]
    """Their numbers in the communicator that was shrunk, in the order of the new one."""


class Outcome(NamedTuple, Generic[T]):
    """What a stage has come to."""

    value: T
    ranks: tuple[int, ...]
    """Who took part to the end."""


def together(
    comm: MPI.Comm,
    stage: Callable[[Survivors], T],
    seconds: float,
    *,
    keep: bool = True,
) -> Outcome[T]:
    """Do `stage` with all ranks of `comm` that live, from the start when one dies in it.

    Either all survivors return, of the same attempt, or nobody does. What the stage
    changes outside of itself must bear to be done again. Collective over the survivors,
    one thread of each.

    The communicator of a stage that all have passed serves the next one, too, as long as
    nobody dies: Open MPI crashes where it hears of a death while it makes one.

    Args:
        comm: may have dead ranks.
        stage: collective over the survivors that it is handed, by operations that are
            waited for with `collectives.complete`.
        seconds: how long the survivors may let each other wait.
        keep: whether it may be one that served before, and may serve again; the same
            everywhere. Else the stage may keep it for itself.

    Raises:
        DeadlineExceeded: a survivor does not come.
        Exception: of the stage's own; the others then wait for nothing more.
    """
    while True:
        small = (_taken(comm) if keep else None) or _polite(comm.Shrink, seconds)
        ranks = tuple(MPI.Group.Translate_ranks(small.group, None, comm.group))
        found, failure = _attempt(small, ranks, stage)
        agreed = _agreed(small, failure is None, seconds)
        if agreed and found is not None:
            # Never freed: that is collective, and somebody may die in it.
            if keep:
                comm.Set_attr(_keyval(), small)
            return Outcome(found[0], ranks)
        if failure is not None and not isinstance(failure, PeerDied):
            raise failure


@cache
def _keyval() -> int:
    """Under which a communicator holds the one of its survivors."""
    return MPI.Comm.Create_keyval()


def _taken(comm: MPI.Comm) -> MPI.Comm | None:
    """The communicator of the stage before, if all have passed it; it is held no more."""
    held = comm.Get_attr(_keyval())
    if not isinstance(held, MPI.Comm):
        return None
    comm.Delete_attr(_keyval())
    return held


def _attempt(
    small: MPI.Comm, ranks: tuple[int, ...], stage: Callable[[Survivors], T]
) -> tuple[tuple[T] | None, Exception | None]:
    """What the stage returns, or what it raises; then the others are told, too."""
    try:
        with alert(small, "the survivors"):
            return (stage(Survivors(small, ranks)),), None
    except Exception as error:
        failure = error
    small.Revoke()
    return None, failure


def _agreed(small: MPI.Comm, well: bool, seconds: float) -> bool:
    """Whether it went well everywhere, the same answer on all survivors.

    A death that has not been acknowledged is no reason to differ: what all survivors
    have, they have.
    """

    def agree() -> bool:
        try:
            return bool(small.Agree(int(well)))
        except MPI.Exception as error:
            if not is_death(error):
                raise
            return False

    return _polite(agree, seconds)


def _polite(call: Callable[[], T], seconds: float) -> T:
    """What `call`, which blocks, returns; at most so many seconds later.

    Raises:
        DeadlineExceeded: it blocks longer. It is left to the end of the process.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="acidmpi-survivors", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise DeadlineExceeded(
            f"the survivors did not meet within {seconds:g} s; a rank stands still "
            "(raise `deadline_seconds` if ranks are that slow)"
        )
    return results[0]


def end_within(seconds: int) -> None:
    """Bound what is left of this process, the end of MPI above all.

    `MPI_Finalize` waits for all ranks; when one dies in it, the others would wait for
    ever. After so many seconds this process is ended by SIGALRM, which a launcher that
    survives deaths takes for one more of them: call it when all is done and written.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
