"""Which ranks live, as this one knows, and what the dead did last.

Owned by the communication loop; the compute loop may read it at any moment, and sees a
death at most a moment late. Ranks only ever leave. Two survivors may know of different
deaths for a while; everything that follows from a death depends on who is dead, not on
the order of the news, so that they agree when both know the same.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Deed(NamedTuple):
    """What a rank was last known to do."""

    what: str
    """In words; {} stands for the rank that tells."""

    seconds: float
    """When, by the clock."""


@dataclass
class Death:
    """What is known of a rank that has died."""

    rank: int

    seconds: float
    """When this rank heard of it, since its start."""

    unix_seconds: float
    """The same on the calendar's clock, which other programs have, too."""

    gradients: int
    """Gradients that it is known to have made."""

    last: str
    """The last thing that this rank knows it to have done."""

    heard_seconds: float
    """When that was, since the start of this rank."""

    recovered_seconds: float | None = None
    """How long after the news the first exchange of this rank was complete, where it was
    a neighbour of the dead or in an exchange with it; None elsewhere, and until then."""

    at_start: bool = False
    """Whether it died before all were ready: then `rank` is its number among those that
    were started, and the others were numbered anew, without it."""

    def described(self) -> dict[str, Any]:
        """For the summary."""
        return asdict(self)


class Membership:
    """The ranks of a run that may lose some of them.

    Args:
        rank: this one.
        size: number of ranks at the start.
        now: seconds at the start, on the clock that later calls use.
    """

    def __init__(self, rank: int, size: int, now: float = 0.0) -> None:
        self.rank, self.size = rank, size
        self.dead: set[int] = set()
        """Grows, and is the same object for ever."""
        self.alive: tuple[int, ...] = tuple(range(size))
        """The others and this one, in increasing order."""
        self.deaths: list[Death] = []
        """In the order of the news."""
        self._began = now

    @property
    def first(self) -> int:
        """The lowest survivor, who does for all what only one can do."""
        return self.alive[0]

    @property
    def leads(self) -> bool:
        """Whether that is this rank."""
        return self.first == self.rank

    @property
    def others(self) -> tuple[int, ...]:
        """The survivors but this one."""
        return tuple(peer for peer in self.alive if peer != self.rank)

    def seconds(self, now: float) -> float:
        """Seconds from the start to `now`."""
        return now - self._began

    def bury(
        self, peer: int, gradients: int, now: float, last: Deed | None = None
    ) -> Death | None:
        """`peer` is dead; None if that is no news.

        Args:
            peer: who.
            gradients: that it is known to have made.
            now: by the clock.
            last: what it did last, if anything.
        """
        if peer in self.dead or peer == self.rank:
            return None
        self.dead.add(peer)
        self.alive = tuple(one for one in self.alive if one != peer)
        deed, heard = last or Deed("it started", self._began)
        death = Death(
            rank=peer,
            seconds=now - self._began,
            unix_seconds=time.time(),
            gradients=gradients,
            last=deed.format(self.rank),
            heard_seconds=heard - self._began,
        )
        self.deaths.append(death)
        return death


def merged(told: list[list[Death]]) -> list[Death]:
    """What all survivors know together of each death, by the dead rank.

    Args:
        told: each survivor's own list.

    Returns:
        Of each death the first news, the latest deed, and the longest recovery.
    """
    by_rank: dict[int, list[Death]] = {}
    for death in (death for deaths in told for death in deaths):
        by_rank.setdefault(death.rank, []).append(death)
    return [_merged(by_rank[rank]) for rank in sorted(by_rank)]


def _merged(deaths: list[Death]) -> Death:
    first = min(deaths, key=lambda death: death.unix_seconds)
    latest = max(deaths, key=lambda death: death.heard_seconds)
    recovered = [
        death.recovered_seconds
        for death in deaths
        if death.recovered_seconds is not None
    ]
    return Death(
        rank=first.rank,
        seconds=first.seconds,
        unix_seconds=first.unix_seconds,
        gradients=max(death.gradients for death in deaths),
        last=latest.last,
        heard_seconds=latest.heard_seconds,
        recovered_seconds=max(recovered) if recovered else None,
    )
