"""Who exchanges when: Poisson clocks, and what real exchanges make of them.

With ideal edges the list of `acidmpi.pairing.events` is used as it is, the same as the
schedule of real ranks with the same seed. With `rematch` every rank starts exchanges at the
same times in the mean, but is likelier, or less likely, than chance to take its last peer.
"""

import heapq
from collections.abc import Iterator

import numpy as np

from acidmpi.pairing.choice import Draw
from acidmpi.pairing.events import Event, schedule_events
from acidmpi.topology.graph import Topology

_STREAM = 0x4E3A7C


def meetings(
    topology: Topology, comm_rate: float, seed: int, rematch: float | None
) -> Iterator[Event]:
    """All exchanges in order of time, without end unless there is none at all.

    Args:
        topology: the graph.
        comm_rate: exchanges that a rank takes part in per unit, in the mean.
        seed: determines the list.
        rematch: probability that a starting rank takes its last peer again; None: as
            chance has it.
    """
    if rematch is None or topology.size == 1 or comm_rate == 0:
        return schedule_events(topology, comm_rate, seed)
    return _sticky(topology, comm_rate, seed, rematch)


def _sticky(
    topology: Topology, comm_rate: float, seed: int, rematch: float
) -> Iterator[Event]:
    chance = np.random.default_rng([_STREAM, seed])
    draws = [_Choice(topology, rank) for rank in range(topology.size)]
    rates = [topology.start_rate(rank, comm_rate) for rank in range(topology.size)]
    due = [(chance.exponential(1 / rate), i) for i, rate in enumerate(rates) if rate]
    heapq.heapify(due)
    while True:
        time, rank = due[0]
        heapq.heapreplace(due, (time + chance.exponential(1 / rates[rank]), rank))
        peer = draws[rank].peer(rematch, chance)
        draws[rank].last, draws[peer].last = peer, rank
        yield Event(time, min(rank, peer), max(rank, peer))


class _Choice:
    """The next peer of one rank."""

    def __init__(self, topology: Topology, rank: int) -> None:
        peers, weights = topology.neighbours(rank), topology.edge_weights(rank)
        self._any = Draw.of(peers, weights)
        self._weights = dict(zip(peers, weights, strict=True))
        self.last: int | None = None

    def peer(self, rematch: float, chance: np.random.Generator) -> int:
        """The last one with the given probability, else another one if there is any."""
        if self.last is None or len(self._weights) == 1:
            return self._any.peer(chance)
        if chance.random() < rematch:
            return self.last
        others = {p: w for p, w in self._weights.items() if p != self.last}
        return Draw.of(tuple(others), tuple(others.values())).peer(chance)


class Reservations:
    """Puts exchanges that take time one after the other at each rank.

    Exchanges are served in the order in which they come due; one whose ranks are taken
    waits for the later of the two.

    Args:
        ranks: how many.
        transfer_units: how long an exchange takes.
    """

    def __init__(self, ranks: int, transfer_units: float) -> None:
        self._free = [0.0] * ranks
        self._transfer = transfer_units

    def begin(self, event: Event) -> float:
        """When the exchange that is due begins; its ranks are taken until it ends."""
        begin = max(event.time, self._free[event.i], self._free[event.j])
        self._free[event.i] = self._free[event.j] = begin + self._transfer
        return begin
