"""A gossip in which an exchange is always due, and what it has done so far."""

import time
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.worker.gossip import Gossip

UNIT_SECONDS = 0.01
"""Short enough that the first exchange is soon due; later ones always are."""


def saturated(x: NDArray[Any], comm: MPI.Comm, **options: Any) -> Gossip:
    """Open a gossip whose ranks never run out of exchanges to make."""
    gossip = Gossip(x, comm=comm, unit_seconds=UNIT_SECONDS, **options)
    # Served exchanges are not counted off: once one is due, one is due for ever.
    gossip.engine.parts.demand.served = _nothing
    return gossip


class Counters(NamedTuple):
    """Sums over ranks, or over time on one rank."""

    seconds: float
    exchanges: float
    """Each counted by both of its ends."""

    repeated: float
    """Exchanges with the same peer as the one before."""

    messages: float
    """Control messages sent."""

    @classmethod
    def of(cls, gossip: Gossip) -> "Counters":
        """Those of this rank now."""
        parts = gossip.engine.parts
        tally = parts.tally
        return cls(
            time.perf_counter(), tally.exchanges, tally.repeated, parts.wire.sent
        )

    def since(self, earlier: "Counters") -> "Counters":
        """What has been added since `earlier`."""
        return Counters(*(a - b for a, b in zip(self, earlier, strict=True)))

    def over_ranks(self, comm: MPI.Comm) -> "Counters":
        """The mean time, and the sums of the counts over all ranks."""
        sums = np.empty(len(self))
        comm.Allreduce(np.array(self, dtype=float), sums)
        return Counters(sums[0] / comm.size, *sums[1:])

    @property
    def pairs_per_second(self) -> float:
        """Exchanges of all ranks, each counted once, per second."""
        return self.exchanges / 2 / self.seconds


def _nothing() -> None:
    pass
