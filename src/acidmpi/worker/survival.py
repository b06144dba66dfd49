"""What a rank does when another one has died: the rest of the run goes on without it.

Owned by the communication loop, which asks it now and then (`look`). All it does is a
function of the whole graph and of who is dead, so that survivors who heard of deaths at
different moments, or in another order, come to the same graph and the same constants
without talking about it.

With a dead rank goes what it held: its own (x + x̃)/2 at its last breath. Of an exchange
that its death has cut short, the chunks that had come both ways are kept on this side; the
dead rank took the other side of their jumps with it, as it did with those of exchanges
that were complete. So the sum of (x + x̃)/2 over the survivors changes by no more than the
jumps of such chunks, which a complete exchange would have applied just so; among survivors
both sides of every chunk are applied, and their sum stays where it is.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from acidmpi.clocks import Clock
from acidmpi.dynamics.coefficients import Coefficients
from acidmpi.topology.graph import Topology
from acidmpi.topology.repair import repaired
from acidmpi.topology.spectrum import spectrum
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.membership import Death, Deed, Membership

LOOK_SECONDS = 50e-3
"""MPI is asked for deaths not more often than that."""

EXCHANGE = "it was in an exchange with rank {}"

Constants = Callable[[float, float], Coefficients]


class Detector(Protocol):
    """Tells of deaths."""

    def news(self) -> list[int]:
        """Ranks that have died since the last call."""
        ...


class Survival:
    """Takes the dead out of everything that this rank does.

    Args:
        membership: who lives.
        detector: who has died.
        topology: the graph of all ranks.
        chi: χ₁ and χ₂ of it.
        constants: those of the dynamics at one exchange a unit, for a χ₁ and a χ₂.
        comm_rate: exchanges asked for, a unit.
        ledger: what is known of others' gradients.
        machine: the pairing protocol.
        demand: when exchanges are due.
        clock: where time comes from.
        metrics: where deaths are recorded, or None.
    """

    def __init__(
        self,
        *,
        membership: Membership,
        detector: Detector,
        topology: Topology,
        chi: tuple[float, float],
        constants: Constants,
        comm_rate: float,
        ledger: Ledger,
        machine: Any,
        demand: Any,
        clock: Clock,
        metrics: Any = None,
    ) -> None:
        self.membership = membership
        self.topology = topology
        self.chi_1, self.chi_2 = chi
        self.changed: Callable[[Coefficients], None] = _ignore
        """Called with new constants at one exchange a unit."""
        self._detector = detector
        self._constants = constants
        self._comm_rate = comm_rate
        self._ledger = ledger
        self._machine = machine
        self._demand = demand
        self._clock = clock
        self._metrics = metrics
        self._look_seconds = 0.0
        self.busy: int | None = None
        """The peer of the exchange at hand, as long as it goes on."""
        self.last: Callable[[int], Deed | None] = _nothing
        """Tells what a rank was heard to do last."""
        self._untold: list[int] = []
        """Dead ranks that the machine has not been told of: an exchange with one of them
        has to end first."""
        self._waiting: list[Death] = []
        """Deaths after which this rank has made no exchange yet."""

    def look(self, now: float) -> bool:
        """Hear of deaths and act on them; whether there were any."""
        if now < self._look_seconds:
            return False
        self._look_seconds = now + LOOK_SECONDS
        news = self._detector.news()
        for rank in news:
            self.bury(rank)
        return bool(news)

    def bury(self, rank: int, deed: str = EXCHANGE) -> None:
        """`rank` is dead; more than once does no harm.

        Args:
            rank: who.
            deed: what it did last if it was in the exchange at hand.
        """
        met = rank in self._machine.neighbours or rank == self._machine.matched
        death = self._bury(rank, deed)
        if death is None:
            return
        if met:
            self._waiting.append(death)
        if self._metrics is not None:
            self._metrics.death(rank, death.last)
        self._untold.append(rank)
        self._mend()
        self._tell_machine()

    def note_others(self, ranks: Sequence[int]) -> None:
        """All but `ranks` are dead; the communication loop has ended."""
        for rank in set(self.membership.alive) - set(ranks):
            self._bury(rank, EXCHANGE)

    @property
    def unsettled(self) -> bool:
        """Whether something waits for the end of an exchange."""
        return bool(self._untold or self._waiting)

    def settle(self, *, exchanged: bool) -> None:
        """An exchange has ended; do what has waited for that.

        Args:
            exchanged: whether it is complete.
        """
        if exchanged:
            self._recovered()
        self._tell_machine()

    def _bury(self, rank: int, deed: str) -> Death | None:
        now = self._clock.now()
        last = Deed(deed, now) if rank == self.busy else self.last(rank)
        return self.membership.bury(rank, self._ledger.known(rank), now, last)

    def _tell_machine(self) -> None:
        """Take the dead out of the pairing, but for one whose exchange is at hand."""
        if not self._untold:
            return
        for rank in [one for one in self._untold if one != self.busy]:
            self._untold.remove(rank)
            self._machine.remove(rank)
        mine = self.membership.rank
        neighbours = self.topology.neighbours(mine)
        self._machine.rewire(neighbours, self.topology.edge_weights(mine))

    def _recovered(self) -> None:
        """An exchange is complete: this rank is at its normal work again."""
        now = self._clock.now()
        for death in self._waiting:
            death.recovered_seconds = self.membership.seconds(now) - death.seconds
            if self._metrics is not None:
                self._metrics.recovery(death.rank, death.recovered_seconds)
        self._waiting.clear()

    def _mend(self) -> None:
        """The graph of those who live, and all that follows from it."""
        mine, alive = self.membership.rank, self.membership.alive
        self.topology = repaired(self.topology, self.membership.dead)
        if len(alive) == 1:
            self._ledger.be_alone()
        else:
            self.chi_1, self.chi_2 = spectrum(self.topology)[:2]
            self.changed(self._constants(self.chi_1, self.chi_2))
        self._demand.set_rate(self.topology.start_rate(mine, self._comm_rate))


def _ignore(constants: Coefficients) -> None:
    pass


def _nothing(peer: int) -> None:
    return None
