"""What communication has cost a rank whose steps are those of all."""

from typing import NamedTuple, Protocol, Self, final


class Counting(Protocol):
    """Whoever sends: an averager, or an optimizer that has one."""

    def statistics(self) -> "Counts":
        """What has happened so far."""
        ...


class Counts(Protocol):
    """What is read of statistics."""

    @property
    def bytes_sent(self) -> int: ...  # noqa: D102
    @property
    def seconds_waiting(self) -> float: ...  # noqa: D102


class Cost(NamedTuple):
    """Bytes sent and seconds waited."""

    bytes_sent: int = 0
    idle_seconds: float = 0.0

    def plus(self, other: Self) -> "Cost":
        """Both together."""
        return Cost(
            self.bytes_sent + other.bytes_sent, self.idle_seconds + other.idle_seconds
        )


@final
class Effort:
    """Adds up the cost of all who communicate, in all starts of a run.

    Owner: the training loop's thread; `cost` may be asked from any.
    """

    def __init__(self) -> None:
        self._counting: list[Counting] = []
        self._frozen: Cost | None = None
        self.earlier = Cost()
        """Of the starts before a checkpoint that the run goes on from."""

    def count(self, counting: Counting) -> None:
        """Add what this one tells, as long as it is open."""
        self._counting.append(counting)

    def freeze(self) -> None:
        """All are about to be closed: what they tell now is the last of them."""
        self._frozen = self._spoken()

    def cost(self) -> Cost:
        """Of all who were counted."""
        return self.earlier.plus(self._frozen or self._spoken())

    def _spoken(self) -> Cost:
        cost = Cost()
        for counting in self._counting:
            told = counting.statistics()
            cost = cost.plus(Cost(told.bytes_sent, told.seconds_waiting))
        return cost
