"""A start that all ranks complete, or none: then those who live can begin again.

Ranks make ready in stages, and a death may meet them in different ones: some have passed
the last stage when others wait in it for the dead. So each rank's start ends with one
agreement of all who live (`mpi.survival.together`): a rank comes to it when it is ready,
or when it has heard of a death. Only if all are ready has the start succeeded; else it
has failed, on every rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py import MPI

from acidmpi.errors import DiedAtStart, PeerDied
from acidmpi.mpi.collectives import allgather
from acidmpi.mpi.survival import Failures, alert, together


@contextmanager
def making_ready(comm: MPI.Comm, what: str, seconds: float) -> Iterator[None]:
    """A part of the start of all ranks of `comm`: a death in it ends the start.

    Args:
        comm: the ranks; collectives inside are on it or on its duplicates.
        what: what the ranks do.
        seconds: how long those who live may let each other wait.

    Raises:
        DiedAtStart: on all that live, in whatever part of the start they are.
    """
    try:
        with alert(comm, what):
            yield
    except DiedAtStart:  # of a part inside this one: it is agreed already
        raise
    except PeerDied as death:
        _agreed(comm, False, seconds)
        raise DiedAtStart(death.peer, what) from death


@contextmanager
def whole_start(
    comm: MPI.Comm, what: str, seconds: float, *, mortal: bool
) -> Iterator[None]:
    """The last part of the start, or all of it: see `making_ready`.

    When it is left without an error, it has succeeded on all ranks that live; who dies
    from here on is no matter of the start. Without `mortal` it does nothing.
    """
    if not mortal:
        yield
        return
    with making_ready(comm, what, seconds):
        yield
    if not _agreed(comm, True, seconds):
        died = Failures(comm).news()
        raise DiedAtStart(died[0] if died else -1, what)


def _agreed(comm: MPI.Comm, ready: bool, seconds: float) -> bool:
    """Whether all who live are ready; each rank comes here once in a start."""
    return together(
        comm,
        lambda survivors: all(
            allgather(survivors.comm, ready, seconds, "the end of the start")
        ),
        seconds,
    ).value


def survivors_of(comm: MPI.Comm, seconds: float) -> tuple[MPI.Comm, tuple[int, ...]]:
    """A communicator of those who live, and the numbers they have in `comm`; collective.

    Args:
        comm: some of its ranks have died.
        seconds: how long those who live may let each other wait.
    """
    found = together(comm, lambda mine: (mine.comm, mine.ranks), seconds, keep=False)
    return found.value
