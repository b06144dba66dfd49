"""Errors of one rank that all raise together, when nothing is under way between them.

A rank whose own computation fails keeps taking part, without a gradient, until all hear of
it in a pulse or an average. So nobody is left waiting and MPI can be finalised.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, final

from acidmpi.errors import (
    AcidError,
    DataError,
    DeviceMemoryError,
    NonFiniteError,
    RemoteError,
)
from acidmpi.mpi.collectives import describe
from acidmpi.mpi.reductions import MPIError
from acidmpi.train.gradients import nonfinite_error

T = TypeVar("T")


class Complaint(NamedTuple):
    """What one rank tells the others."""

    nonfinite: bool
    text: str


def can_wait(error: Exception) -> bool:
    """Whether an error is this rank's own, so that it can go on taking part till all know.

    Other errors of this package come from the averaging itself, which then has ended.
    """
    if isinstance(error, DataError | DeviceMemoryError):
        return True
    return not isinstance(error, AcidError | MPIError)


def complaint_of(error: Exception | None) -> Complaint | None:
    """How a rank tells of its error, if it has one."""
    if error is None:
        return None
    return Complaint(isinstance(error, NonFiniteError), describe(error))


def common_error(
    told: Sequence[Complaint | None], rank: int, mine: Exception | None
) -> Exception:
    """What `rank` raises: its own error, or that of the lowest rank that has one.

    Of errors that nobody foresaw the lowest rank's alone is raised as it is, so that its
    traceback is shown once. A gradient that is not finite is the same error on all ranks.

    Args:
        told: of each rank; at least one complains.
        rank: this one.
        mine: its own error.
    """
    first = next(r for r, complaint in enumerate(told) if complaint is not None)
    complaint = told[first]
    assert complaint is not None
    if complaint.nonfinite:
        return nonfinite_error(f"rank {first}")
    if mine is not None and (rank == first or isinstance(mine, AcidError)):
        return mine
    return RemoteError(first, complaint.text)


@final
class Complaints:
    """What one rank has to complain of; for the training loop's thread.

    Args:
        rank: this one.
        gather: gives every rank's value to all; collective.
    """

    def __init__(self, rank: int, gather: Callable[[Any], list[Any]]) -> None:
        self._rank = rank
        self._gather = gather
        self._error: Exception | None = None
        self.agreed = False
        """Whether all ranks have raised together."""

    @property
    def any(self) -> bool:
        """Whether this rank has an error that the others do not know of yet."""
        return self._error is not None

    def add(self, error: Exception | None = None) -> None:
        """This rank cannot go on: all raise at the next pulse or average of all.

        Args:
            error: what it raises; the first one counts. None: its gradient is not finite.
        """
        if self._error is None:
            self._error = error or nonfinite_error(f"rank {self._rank}")

    def attempt(self, action: Callable[[], T], otherwise: T) -> T:
        """What `action` gives; after an error of this rank's own, `otherwise`.

        The rank has to go on taking part until `check` raises.
        """
        try:
            return action()
        except Exception as error:
            if not can_wait(error):
                raise
            self.add(error)
            return otherwise

    def check(self, first: int | None) -> None:
        """Raise, with all ranks, if a rank complains; collective in this case.

        Args:
            first: the lowest one that does, as all know by now.
        """
        if first is not None:
            told = self._gather(complaint_of(self._error))
            self.agreed = True
            raise common_error(told, self._rank, self._error)
