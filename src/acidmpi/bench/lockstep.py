"""The simplest loop between two ranks: the same exchange again and again, no pairing.

Both ranks know that they exchange with each other, so that nothing is asked, answered,
counted or told: the rival of what pairing costs. State, messages, exchange and the
thread that polls are the worker's own.
"""

import math
import time

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.clocks import WallClock
from acidmpi.dynamics.coefficients import BASELINE
from acidmpi.kernels import load
from acidmpi.mpi.communicators import Communicators
from acidmpi.mpi.nodes import find_node
from acidmpi.progress import Pace, Steps
from acidmpi.transport.host import HostTransport
from acidmpi.worker.assembly import HOT_SECONDS
from acidmpi.worker.driver import ThreadDriver
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.state import RankState
from acidmpi.worker.units import WallUnits


def lockstep_rate(
    x: NDArray[np.float32],
    comm: MPI.Comm,
    exchanges: int,
    accelerated: bool,
    deadline_seconds: float,
) -> float:
    """Exchanges per second when so many follow one another (collective, 2 ranks)."""
    comms = Communicators.open(comm, deadline_seconds, ["data"])
    crowd = find_node(comms.collective, deadline_seconds).ranks_per_core
    exchanger = Exchanger(
        RankState([x], load("cpu"), WallUnits(WallClock(), 1.0), accelerated),
        HostTransport(comms.data),
        WorkerOptions().chunk_bytes,
        WallClock(),
        deadline_seconds,
        HOT_SECONDS if crowd <= 1 else 0.0,
    )
    loop = LockstepLoop(exchanger, 1 - comm.rank, exchanges)
    driver = ThreadDriver(loop, Ledger(comm.rank, 2, None), crowd, "lockstep")
    comm.Barrier()
    began = time.perf_counter()
    driver.start()
    driver.finish()
    seconds = comm.allreduce(time.perf_counter() - began, MPI.MAX)
    if loop.failure is not None:
        raise loop.failure
    comms.close()
    return float(exchanges / seconds)


class LockstepLoop:
    """What a driver sees: the counterpart of `worker.loop.CommunicationLoop`.

    Args:
        exchanger: runs one exchange.
        peer: always the same.
        exchanges: how many.
    """

    def __init__(self, exchanger: Exchanger, peer: int, exchanges: int) -> None:
        self.activity = 0
        self.ended = False
        self.failure: BaseException | None = None
        self._steps = self._run(exchanger, peer, exchanges)

    def advance(self) -> Pace:
        """One look at the exchange at hand."""
        try:
            return next(self._steps)
        except StopIteration:
            self.ended = True
            return Pace.POLL

    def seconds_to_next(self) -> float:
        """Nothing is due by itself."""
        return math.inf

    def abandon(self, error: BaseException) -> None:
        """Keep what went wrong."""
        self.failure = error

    def _run(self, exchanger: Exchanger, peer: int, exchanges: int) -> Steps[None]:
        _, alpha, alpha_tilde = BASELINE
        for _ in range(exchanges):
            yield from exchanger.exchange(Terms(peer, alpha, alpha_tilde))
            self.activity += 1
