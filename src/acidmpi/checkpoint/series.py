"""When sets are due and when they are complete: decided alike by all ranks, from sums.

Ranks hear the same sums in the same order, those of heartbeats or of pulses. One of them
tells that the next mark is passed: a set is due, and each rank takes its part when it can.
From then on each rank says in every sum whether it has *ended* that set, and whether it
has its part on disk (*kept*). The round in which all have ended it decides: it is complete
if all have kept it, and given up otherwise. Nobody waits for any of this.

One set at a time: a mark that is passed while a set is under way is left out.
"""

from enum import Enum


class Verdict(Enum):
    """What has become of the set under way."""

    COMPLETE = "complete"
    GIVEN_UP = "given up"


class Series:
    """The sets of one start of a run; pure.

    Args:
        every: gradients of all ranks between two sets, or None for none.
        done: gradients of all ranks before the start.
    """

    def __init__(self, every: int | None, done: int = 0) -> None:
        self._every = every
        self._next = None if every is None else every * (done // every + 1)
        self.due = 0
        """Sets that were due so far; the number of the one under way, from 1."""
        self.decided = 0
        """Sets whose end has been heard of."""
        self.left_out = 0
        """Marks that were passed while a set was under way."""

    @property
    def under_way(self) -> bool:
        """Whether a set is not decided yet."""
        return self.due > self.decided

    def reaches(self, total_gradients: int) -> bool:
        """Whether `passed` would find that a mark is passed."""
        return self._next is not None and total_gradients >= self._next

    def passed(self, total_gradients: int) -> bool:
        """All ranks have made so many gradients; whether a set is due now."""
        if self._next is None or self._every is None or total_gradients < self._next:
            return False
        self._next = self._every * (total_gradients // self._every + 1)
        if self.under_way:
            self.left_out += 1
            return False
        self.due += 1
        return True

    def heard(self, ended: float, kept: float, ranks: int) -> Verdict | None:
        """Take in a sum over `ranks` ranks.

        Args:
            ended: sum of the numbers of sets that each rank has ended.
            kept: how many ranks have the last one that they ended on disk.
            ranks: those that are alive.
        """
        if not self.under_way or round(ended) < ranks * self.due:
            return None
        self.decided = self.due
        return Verdict.COMPLETE if round(kept) == ranks else Verdict.GIVEN_UP
