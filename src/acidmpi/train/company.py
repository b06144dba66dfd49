"""The ranks of a run as seen from one of them: stages that all pass, or none.

Guarantees:
- after an error on any rank, every rank's call of the same stage raises: its own error
  where it has one, `RemoteError` elsewhere; nobody is left waiting;
- where several ranks meet an error that nobody foresaw, the lowest one alone raises it,
  so that its traceback is shown once;
- `orderly` says whether the others know of the end: when it is false, some rank may
  wait for this one, and only `abort` ends the job. So it is when `clean` is false.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from acidmpi.errors import (
    AcidError,
    DeadlineExceeded,
    DisagreementError,
    RemoteError,
)
from acidmpi.mpi.collectives import allgather, broadcast, check_same, describe
from acidmpi.mpi.nodes import Node, find_node

if TYPE_CHECKING:
    from acidmpi.train.lost import Lost

T = TypeVar("T")


class Company:
    """Collective calls over one communicator, with one deadline.

    Args:
        comm: the ranks.
        deadline_seconds: how long a wait for the others may take.
    """

    def __init__(self, comm: Any, deadline_seconds: float) -> None:
        self.comm = comm
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.deadline_seconds = deadline_seconds
        self.orderly = False
        """Whether the latest error reached all ranks."""
        self.clean = True
        """Whether MPI can be finalised: no operation is left that cannot end."""
        self.lost: Lost | None = None
        """Those who died before these began; None where nobody did."""

    def together(self, action: Callable[[], T], patience: float = 1.0) -> T:
        """What `action` returns, once it has succeeded on every rank.

        Args:
            action: this rank's part; may differ from the others'.
            patience: factor on the deadline where ranks' parts differ in length.
        """
        value, failure = attempt(action)
        text = None if failure is None else describe(failure)
        seconds = patience * self.deadline_seconds
        try:
            texts = allgather(self.comm, text, seconds, "a stage that all ranks pass")
        except DeadlineExceeded:
            if failure is not None:  # which is why the others are somewhere else
                raise failure from None
            raise
        self._raise_first(texts, failure)
        assert value is not None
        return value[0]

    def first(self, action: Callable[[], T], patience: float = 1.0) -> T:
        """What `action` returns on rank 0, where alone it is called."""
        mine = self.together(lambda: action() if self.rank == 0 else None, patience)
        what = "rank 0's part of a stage"
        result: T = broadcast(self.comm, mine, self.deadline_seconds, what)
        return result

    def node(self) -> Node:
        """This rank's place on its machine; collective."""
        return find_node(self.comm, self.deadline_seconds)

    @property
    def leads(self) -> bool:
        """Whether this rank does what only one does: rank 0, where nobody may die."""
        return self.rank == 0

    @property
    def dead(self) -> tuple[int, ...]:
        """Ranks that are known to have died."""
        return ()

    def start(self, action: Callable[[], T]) -> T:
        """As `together`, for the last thing that ranks do before they train."""
        return self.together(action)

    def claim(self, make: Callable[[], Path]) -> Path:
        """The run's folder, which rank 0 makes; collective.

        Nothing may be written to it before all ranks have passed another stage: by then
        all know that it is this run's.
        """
        return self.first(make)

    def without_the_dead(self) -> "Company":
        """Those who can begin again; where nobody may die, nobody has to."""
        return self

    def gather(self, value: T) -> list[T | None]:
        """Every rank's `value`, by rank; None for those who have died."""
        what = "gathering every rank's figures"
        everyone: list[T | None] = allgather(
            self.comm, value, self.deadline_seconds, what
        )
        return everyone

    def _raise_first(
        self, texts: Sequence[str | None], failure: Exception | None
    ) -> None:
        """Raise if any rank has failed; of unforeseen errors the first one only."""
        first = next((r for r, text in enumerate(texts) if text is not None), None)
        if first is None:
            return
        self.orderly = True
        if failure is not None and (self.rank == first or _foreseen(failure)):
            raise failure
        raise RemoteError(first, texts[first] or "") from failure

    def must_agree(self, values: dict[str, str]) -> None:
        """Raise on every rank when `values` differ, saying who differs in what."""
        try:
            check_same(self.comm, values, self.deadline_seconds)
        except DisagreementError:
            self.orderly = True
            raise

    def meet(self, seconds: float) -> None:
        """Wait until all ranks are here, but not longer than that."""
        with suppress(DeadlineExceeded):
            allgather(self.comm, None, seconds, "the end of the others")

    def abort(self, status: int) -> None:
        """End all processes of the job at once."""
        self.comm.Abort(status)


def _foreseen(error: Exception) -> bool:
    return isinstance(error, AcidError)


def attempt(action: Callable[[], T]) -> tuple[tuple[T] | None, Exception | None]:
    """What `action` returns, in a tuple, or what it raises."""
    try:
        return (action(),), None
    except Exception as error:
        return None, error
