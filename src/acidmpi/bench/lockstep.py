"""The simplest loops between two ranks: the same exchange again and again, no pairing.

Both ranks know that they exchange with each other, so that nothing is asked, answered,
counted or told: the rivals of what pairing costs. State, messages, exchange and the
thread that polls are the worker's own. One loop sends the data alone; the other one also
sends the control messages of a handshake, and looks at nothing that they say.
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
from acidmpi.pairing.messages import Kind
from acidmpi.pairing.wire import Notice, Wire
from acidmpi.progress import Deadline, Pace, Steps
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
    control: bool = False,
) -> float:
    """Exchanges per second when so many follow one another (collective, 2 ranks).

    Args:
        x: the vector.
        comm: two ranks.
        exchanges: how many.
        accelerated: with the companion vector.
        deadline_seconds: how long a wait for the other rank may take.
        control: send one control message each way for each exchange, too.
    """
    comms = Communicators.open(comm, deadline_seconds, ["data", "control"])
    crowd = find_node(comms.collective, deadline_seconds).ranks_per_core
    exchanger = Exchanger(
        RankState([x], load("cpu"), WallUnits(WallClock(), 1.0), accelerated),
        HostTransport(comms.data),
        WorkerOptions().chunk_bytes,
        WallClock(),
        deadline_seconds,
        HOT_SECONDS if crowd <= 1 else 0.0,
    )
    wire = Wire(comms.control) if control else None
    loop = LockstepLoop(exchanger, 1 - comm.rank, exchanges, wire, deadline_seconds)
    driver = ThreadDriver(loop, Ledger(comm.rank, 2, None), crowd, "lockstep")
    comm.Barrier()
    began = time.perf_counter()
    driver.start()
    driver.finish()
    seconds = comm.allreduce(time.perf_counter() - began, MPI.MAX)
    if loop.failure is not None:
        raise loop.failure
    if wire is not None:
        wire.close()
    comms.close()
    return float(exchanges / seconds)


class LockstepLoop:
    """What a driver sees: the counterpart of `worker.loop.CommunicationLoop`.

    Args:
        exchanger: runs one exchange.
        peer: always the same.
        exchanges: how many.
        wire: for a message each way before each exchange, or None.
        deadline_seconds: how long the peer's message may take.
    """

    def __init__(
        self,
        exchanger: Exchanger,
        peer: int,
        exchanges: int,
        wire: Wire | None,
        deadline_seconds: float,
    ) -> None:
        self.activity = 0
        self.ended = False
        self.failure: BaseException | None = None
        self._wire = wire
        self._deadline_seconds = deadline_seconds
        self._steps = self._run(Terms(peer, *BASELINE[1:]), exchanger, exchanges)

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

    def _run(self, terms: Terms, exchanger: Exchanger, exchanges: int) -> Steps[None]:
        for _ in range(exchanges):
            if self._wire is not None:
                yield from self._control(self._wire, terms.peer)
            yield from exchanger.exchange(terms)
            self.activity += 1

    def _control(self, wire: Wire, peer: int) -> Steps[None]:
        """One control message each way."""
        wire.send(peer, Kind.REQUEST, Notice())
        if wire.receive() is not None:
            return
        deadline = Deadline(self._deadline_seconds, WallClock(), "a control message")
        while wire.receive() is None:
            deadline.check()
            yield Pace.HOT
