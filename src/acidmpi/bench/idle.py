"""What a communication loop costs while nothing is due.

Every rank holds a `Gossip` whose unit of time is not known, so that no exchange is ever
due, and sleeps. What its process spends meanwhile, MPI's own threads included, is the
loop's: polls for messages and the heartbeat.
"""

import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from acidmpi.bench.options import IdleOptions
from acidmpi.bench.report import Figure
from acidmpi.worker.gossip import Gossip

SETTLING_SECONDS = 1.0
"""The first heartbeats come faster."""

SHARE = 0.02
"""Of a core that a loop may use."""

SHARE_OF_64 = 0.30
"""Of a core that 64 of them may use together."""


def run(options: IdleOptions, comm: MPI.Comm) -> list[Figure]:
    """Watch every rank at once."""
    x = np.zeros(options.size, np.float32)
    with Gossip(
        x,
        comm=comm,
        topology=options.topology,
        deadline_seconds=options.deadline_seconds,
    ):
        time.sleep(SETTLING_SECONDS)
        during = _share(lambda: time.sleep(options.seconds))
    without = _share(lambda: time.sleep(options.seconds / 4))
    shares = comm.allgather((without, during))
    return _figures([w for w, _ in shares], [d for _, d in shares])


def _share(work: Callable[[], None]) -> float:
    """CPU seconds of this process per second, while `work` runs."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def _figures(without: list[float], during: list[float]) -> list[Figure]:
    ranks = len(during)

    def figure(name: str, share: float, at_most: float | None = None) -> Figure:
        bound = None if at_most is None else 100 * at_most
        return Figure(name=name, value=100 * share, unit="% of a core", at_most=bound)

    return [
        figure("idle loop, mean of ranks", sum(during) / ranks, SHARE),
        figure("idle loop, busiest rank", max(during), SHARE),
        figure("all loops together", sum(during), SHARE_OF_64 if ranks == 64 else None),
        figure("without a loop, mean of ranks", sum(without) / ranks),
    ]
