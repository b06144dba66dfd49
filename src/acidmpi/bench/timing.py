"""Rivals take turns, all ranks begin together, and medians are compared."""

import statistics
import time
from collections.abc import Callable, Mapping

from mpi4py import MPI


def interleaved(
    comm: MPI.Comm,
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    prepare: Callable[[str], object],
) -> dict[str, float]:
    """Median seconds of each piece of work, by name.

    A piece takes as long as on the slowest rank. In each round every piece has its turn,
    in the opposite order to the round before; a first round is not counted.

    Args:
        comm: the ranks.
        work: what to time.
        rounds: how often.
        prepare: called with a piece's name before it, outside of its time.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for number in range(1 + rounds):
        for name in names:
            prepare(name)
            seconds = timed(comm, work[name])
            if number:
                taken[name].append(seconds)
        names.reverse()
    return {name: statistics.median(times) for name, times in taken.items()}


def timed(comm: MPI.Comm, work: Callable[[], object]) -> float:
    """Seconds that `work` takes on the slowest rank; all begin together."""
    comm.Barrier()
    began = time.perf_counter()
    work()
    seconds: float = comm.allreduce(time.perf_counter() - began, MPI.MAX)
    return seconds
