"""Ranks that died before all were ready: the others have begun again without them.

They are numbered anew, in the order that they had. What the options say of ranks, the
graph and faults to order, is taken over from the first numbering.
"""

from dataclasses import dataclass

from acidmpi.config.train import TrainConfig
from acidmpi.faults.drill import renumbered
from acidmpi.faults.plan import Plan
from acidmpi.topology.graph import Topology
from acidmpi.topology.make import make_topology
from acidmpi.topology.repair import compacted, repaired
from acidmpi.worker.membership import Death

LAST = "it made ready for the start"


@dataclass(frozen=True)
class Lost:
    """What the ranks of a run know of those that did not live to its start."""

    size: int
    """How many were started."""

    ranks: tuple[int, ...]
    """First numbers of those who live, by their present ones."""

    deaths: tuple[Death, ...] = ()
    """In first numbers."""

    def without(
        self, ranks: tuple[int, ...], seconds: float, unix_seconds: float
    ) -> "Lost":
        """Of those who lived all but `ranks` have died, too.

        Args:
            ranks: in present numbers.
            seconds: now, since the start of this rank.
            unix_seconds: the same on the calendar's clock.
        """
        left = tuple(self.ranks[rank] for rank in ranks)
        fresh = (
            Death(rank, seconds, unix_seconds, 0, LAST, 0.0, at_start=True)
            for rank in self.ranks
            if rank not in left
        )
        return Lost(self.size, left, (*self.deaths, *fresh))

    def told(self) -> str:
        """One line for people."""
        dead = ", ".join(str(death.rank) for death in self.deaths)
        return (
            f"of {self.size} ranks these died before all were ready: {dead}; the other "
            f"{len(self.ranks)} begin again, numbered from 0"
        )

    def graph(self, config: TrainConfig) -> Topology:
        """The graph of all that were started, repaired, in present numbers.

        Raises:
            TopologyError: there is no such graph.
        """
        whole = make_topology(config.topology, self.size, config.seed)
        dead = set(range(self.size)) - set(self.ranks)
        return compacted(repaired(whole, dead))

    def faults(self, config: TrainConfig) -> str | None:
        """What was ordered for those who live."""
        plan = Plan.of(config.fault)
        return renumbered(plan, self.size, self.ranks, config.seed) or None
