"""One rank's keeping of checkpoints: takes its part of a set, has it written, tells.

Who owns what:
- `take` copies the state in the caller's thread; the caller sees to it that nobody
  changes the state meanwhile, and that nothing else is held up for longer;
- from then on the copy is the writer's, until the set is decided: `series` begins no
  other set before;
- `contribution`, `hear` and `passed` are called by whoever adds up sums over ranks, one
  thread; `ask` by any thread.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acidmpi.checkpoint.series import Series, Verdict
from acidmpi.checkpoint.sets import Manifest, Mark, Sets
from acidmpi.checkpoint.tree import Packed, Stage, Tree, pack
from acidmpi.checkpoint.writer import Writer

KEPT_SETS = 2
"""Complete sets that stay: the newest, and one in case that it gets damaged."""


def say(text: str) -> None:
    """One line to the standard error; training goes on."""
    print(f"acidmpi: warning: {text}", file=sys.stderr, flush=True)


class Keeper:
    """Keeps this rank's parts.

    Args:
        sets: where to.
        rank: this one.
        size: number of ranks.
        session: the name of this start, the same on all ranks.
        first: number of the first set, above all that are there.
        every: gradients of all ranks between two sets, or None for none.
        done: gradients of all ranks before the start.
        identity: see `Manifest`.
        tell: called with a text when something is amiss.
    """

    def __init__(
        self,
        sets: Sets,
        *,
        rank: int,
        size: int,
        session: str,
        first: int,
        every: int | None,
        done: int = 0,
        identity: dict[str, str] | None = None,
        tell: Callable[[str], Any] = say,
    ) -> None:
        self._sets = sets
        self._rank, self._size = rank, size
        self._session, self._first = session, first
        self._identity = identity or {}
        self._tell = tell
        self._stage = Stage()
        self._writer = Writer(self._failed)
        self._total = done
        self._complete: list[int] = []
        self.regular = every is not None
        """Whether sets are taken on the way, and not only when asked for."""
        self.series = Series(every, done)
        self.taken = 0
        """Sets that this rank has taken its part of."""
        self.asked = False
        """Whether this rank was asked to keep a last set when the run ends."""
        self.last = False
        """Whether the last set is taken, on all ranks alike."""

    @property
    def wants(self) -> bool:
        """Whether a set is due that this rank has not taken."""
        return self.series.due > self.taken

    @property
    def folder(self) -> Path:
        """Of the newest set."""
        return self._sets.folder(self._mark(self.series.due).number)

    def ask(self) -> None:
        """Keep a last set when the run ends."""
        self.asked = True

    def passed(self, total_gradients: int) -> None:
        """All ranks have made so many gradients."""
        before = self.series.left_out
        if self.series.passed(total_gradients):
            self._total = total_gradients
        elif self.series.left_out > before == 0 and self._rank == 0:
            self._tell(
                f"no checkpoint at {total_gradients} gradients: the one before is not "
                "written yet; raise --checkpoint-every"
            )

    def take(self, state: Callable[[], Tree]) -> None:
        """Copy the state and have it written.

        Args:
            state: called at once; what it gives is copied before this returns.
        """
        self.taken += 1
        mark = self._mark(self.taken)
        copy = self._stage.copy(pack(state()))
        self._writer.part(lambda: self._write(mark, copy))

    def take_last(self, state: Callable[[], Tree], total_gradients: int) -> None:
        """The last set of a run; all ranks do this together."""
        self._writer.finish()
        # One that is under way is given up: some ranks have not come to take it.
        self._writer.ended = self.series.decided = self.taken = self.series.due
        self.series.due += 1
        self._total = total_gradients
        self.last = True
        self.take(state)

    def contribution(self) -> tuple[int, bool]:
        """What this rank adds to a sum: sets ended, and whether the last one is kept."""
        return self._writer.ended, self._writer.kept

    def hear(
        self, ended: float, kept: float, members: Sequence[int] | None = None
    ) -> None:
        """Take in a sum; the lowest member seals a set that is complete.

        Args:
            ended: sum of the first parts of contributions.
            kept: sum of the second ones.
            members: ranks that have contributed; by default all.
        """
        ranks = tuple(range(self._size)) if members is None else tuple(members)
        verdict = self.series.heard(ended, kept, len(ranks))
        if verdict is Verdict.COMPLETE:
            self._conclude(ranks)
        elif verdict is Verdict.GIVEN_UP:
            number = self._mark(self.series.due).number
            self._give_up(number, ranks)

    def settle(self) -> tuple[int, bool]:
        """Wait for what is being written; then this rank's contribution."""
        self._writer.finish()
        return self.contribution()

    def last_words(self, interrupted: bool) -> tuple[float, float, float, float]:
        """Wait for what is being written; then what this rank adds to a last sum.

        Args:
            interrupted: whether the run has been stopped, as far as is known here.
        """
        return (self.asked, interrupted, *self.settle())

    def takes_last(
        self, sums: Iterable[float], members: Sequence[int] | None = None
    ) -> bool:
        """Take in the last sum: whether there is to be a last set; the same on all.

        There is one if any rank was asked for it, and at the planned end of a run in
        which sets are taken on the way.

        Args:
            sums: over ranks, of their `last_words`.
            members: see `hear`.
        """
        asked, interrupted, ended, kept = sums
        self.hear(ended, kept, members)
        return asked > 0 or (self.regular and not interrupted)

    def close(self) -> None:
        """Finish what the thread has to do."""
        self._writer.finish()

    def _mark(self, count: int) -> Mark:
        return Mark(session=self._session, number=self._first + count - 1)

    def _write(self, mark: Mark, copy: Packed) -> None:
        self._sets.write(mark, self._rank, copy)

    def _conclude(self, members: tuple[int, ...]) -> None:
        mark, leads = self._mark(self.series.due), self._rank == min(members)
        manifest = Manifest(
            mark=mark,
            size=self._size,
            members=members,
            total_gradients=self._total,
            identity=self._identity,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if leads:
            self._writer.chore(lambda: self._sets.seal(manifest))
        self._complete.append(mark.number)
        self._writer.chore(lambda: self._prune(leads))

    def _prune(self, leads: bool) -> None:
        """Remove this rank's parts of all but the newest complete sets."""
        kept = self._complete[-KEPT_SETS:]
        if len(kept) < KEPT_SETS:  # an earlier start's set is still the spare one
            return
        for number in self._sets.numbers():
            if number < kept[0]:
                self._sets.remove(number, self._rank, leads)

    def _give_up(self, number: int, members: tuple[int, ...]) -> None:
        leads = self._rank == min(members)
        self._writer.chore(lambda: self._sets.remove(number, self._rank, leads))
        if leads:
            self._tell(
                f"the checkpoint {self._sets.folder(number)} could not be written by "
                "every rank; the one before stays the newest"
            )

    def _failed(self, error: Exception) -> None:
        text = getattr(error, "strerror", None) or str(error)
        self._tell(
            f"rank {self._rank} cannot write a checkpoint to {self._sets.path}: {text}"
        )
