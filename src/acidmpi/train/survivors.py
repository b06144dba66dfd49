"""The ranks of a run that goes on when some of them die.

Guarantees, beside those of `Company`:
- while ranks make ready, a death ends the start: every survivor's stage raises
  `DiedAtStart` within a fraction of a second, and `without_the_dead` is the company that
  begins again;
- once `start` has been passed, a stage is passed by all who live. Who dies in it is left
  out and the others pass it again from its start, without doing twice what they have
  done; what rank 0 does alone is done by the lowest survivor.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, final

from acidmpi.clocks import WallClock
from acidmpi.errors import DiedAtStart
from acidmpi.mpi.beginning import making_ready, survivors_of
from acidmpi.mpi.collectives import allgather, broadcast, describe
from acidmpi.mpi.nodes import Node
from acidmpi.mpi.survival import Failures, Survivors
from acidmpi.mpi.survival import together as survive
from acidmpi.train.company import Company, attempt
from acidmpi.train.lost import Lost

T = TypeVar("T")

START = "the start of all ranks"


@final
class SurvivingCompany(Company):
    """Collective calls over those ranks of a communicator that live.

    Args:
        comm: the ranks; MPI must have ULFM.
        deadline_seconds: how long a wait for the others may take.
    """

    def __init__(self, comm: Any, deadline_seconds: float) -> None:
        super().__init__(comm, deadline_seconds)
        self._begun = False
        self._ranks = tuple(range(self.size))
        self._clock = WallClock()
        self._born = self._clock.now()
        self._claimed: Path | None = None

    @property
    def leads(self) -> bool:
        """Whether no lower rank lives, as far as is known."""
        dead = Failures(self.comm).news()
        return self.rank == min(rank for rank in self._ranks if rank not in dead)

    @property
    def dead(self) -> tuple[int, ...]:
        """Ranks that have not come to the latest stage."""
        return tuple(r for r in range(self.size) if r not in self._ranks)

    def start(self, action: Callable[[], T]) -> T:
        """As `Company.start`; from here on the others go on without the dead."""

        def guarded() -> T:
            with self._making_ready():
                return action()

        value, failure = attempt(guarded)
        if isinstance(failure, DiedAtStart):
            raise failure
        self._begun = True  # or has failed on all ranks, which tell each other
        return self._shared(value, failure, 1.0)

    def without_the_dead(self) -> "SurvivingCompany":
        """Those who live, as a company that has yet to begin; collective."""
        comm, ranks = survivors_of(self.comm, self.deadline_seconds)
        fewer = SurvivingCompany(comm, self.deadline_seconds)
        lost = self.lost or Lost(self.size, tuple(range(self.size)))
        seconds = self._clock.now() - self._born
        fewer.lost = lost.without(ranks, seconds, time.time())
        fewer._born, fewer._claimed = self._born, self._claimed
        return fewer

    def claim(self, make: Callable[[], Path]) -> Path:
        """As `Company.claim`; the folder of those who began before somebody died."""
        claims = [path for path in self.gather(self._claimed) if path is not None]
        self._claimed = claims[0] if claims else self.first(make)
        return self._claimed

    def node(self) -> Node:
        """As `Company.node`, at the start only."""
        with self._making_ready():
            return super().node()

    def must_agree(self, values: dict[str, str]) -> None:
        """As `Company.must_agree`, at the start only."""
        with self._making_ready():
            super().must_agree(values)

    def together(self, action: Callable[[], T], patience: float = 1.0) -> T:
        """As `Company.together`, over those who live."""
        if not self._begun:
            with self._making_ready():
                return super().together(action, patience)
        return self._shared(*attempt(action), patience)

    def first(self, action: Callable[[], T], patience: float = 1.0) -> T:
        """What `action` returns on the lowest survivor, where alone it is called."""
        if not self._begun:
            with self._making_ready():
                return super().first(action, patience)
        seconds = patience * self.deadline_seconds
        done: list[tuple[Any, str | None, Exception | None]] = []

        def stage(survivors: Survivors) -> tuple[Any, str | None]:
            if self.rank == survivors.ranks[0] and not done:
                value, failure = attempt(action)
                text = None if failure is None else describe(failure)
                done.append((value, text, failure))
            mine = done[0][:2] if done else None
            what = f"rank {survivors.ranks[0]}'s part of a stage"
            told: tuple[Any, str | None] = broadcast(
                survivors.comm, mine, seconds, what
            )
            return told

        (value, text), self._ranks = survive(self.comm, stage, seconds)
        failure = done[0][2] if done else None
        texts = [text if rank == self._ranks[0] else None for rank in range(self.size)]
        self._raise_first(texts, failure)
        result: T = value[0]
        return result

    def gather(self, value: T) -> list[T | None]:
        """Every rank's `value`, by rank; None for the dead."""
        if not self._begun:
            with self._making_ready():
                return super().gather(value)
        return self._everyone(value, 1.0)

    def _making_ready(self) -> AbstractContextManager[None]:
        return making_ready(self.comm, START, self.deadline_seconds)

    def _shared(
        self, value: tuple[T] | None, failure: Exception | None, patience: float
    ) -> T:
        """What this rank's part came to, once everyone's has succeeded."""
        text = None if failure is None else describe(failure)
        self._raise_first(self._everyone(text, patience), failure)
        assert value is not None
        return value[0]

    def _everyone(self, value: T, patience: float) -> list[T | None]:
        seconds = patience * self.deadline_seconds

        def stage(survivors: Survivors) -> list[T]:
            return allgather(survivors.comm, value, seconds, "a stage of the survivors")

        values, self._ranks = survive(self.comm, stage, seconds)
        by_rank = dict(zip(self._ranks, values, strict=True))
        return [by_rank.get(rank) for rank in range(self.size)]
