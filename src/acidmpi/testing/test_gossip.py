"""Real exchanges on this cluster: ranks agree in the end, and on the right value."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.worker.gossip import Gossip

pytestmark = pytest.mark.mpi

UNIT_SECONDS = 0.005
DEADLINE_SECONDS = 60.0


@pytest.mark.parametrize("method", ["a2cid2", "async"])
@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_averaging_keeps_the_mean(method: str, progress: str) -> None:
    """Ranks come together by exchanges, and end at the mean of their starts."""
    comm = MPI.COMM_WORLD
    if progress == "thread" and MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        pytest.skip("this MPI does not grant MPI_THREAD_MULTIPLE")
    x = np.random.default_rng(comm.rank).normal(size=10_000)
    mean = np.empty_like(x)
    comm.Allreduce(x, mean)
    mean /= comm.size
    apart = comm.allreduce(float(((x - mean) ** 2).sum())) / comm.size
    gossip = Gossip(
        x,
        comm=comm,
        method=method,
        progress=progress,
        unit_seconds=UNIT_SECONDS,
        total_gradients=100 * comm.size,
        deadline_seconds=DEADLINE_SECONDS,
    )
    with gossip:
        while not gossip.finished:
            gossip.apply(np.zeros_like(x))
    np.testing.assert_allclose(x, mean, rtol=0, atol=1e-12)
    told = gossip.statistics()
    assert told.mean_drift <= 1e-12
    if comm.size > 1:
        assert told.exchanges > 0
        assert told.consensus_distance < 0.5 * apart, "exchanges brought ranks together"
