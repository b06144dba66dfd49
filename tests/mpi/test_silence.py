"""Ranks that set each other aside all the time: what was begun in vain changes nothing."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi import Gossip
from acidmpi.progress.limits import Limits

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
LATE = "rank=all at=message:1- do=delay:0~1e-3; rank=all at=chunk:1- do=delay:0~1e-3"

GRADIENTS = 40


@pytest.fixture
def impatient(monkeypatch):
    """No answer is waited for, and all messages are late."""
    monkeypatch.setattr(Limits, "patience_seconds", 0.0)
    return {
        "comm": COMM,
        "comm_rate": 2.0,
        "unit_seconds": 4e-3,
        "chunk_bytes": 4096,
        "fault": LATE,
        "deadline_seconds": 30,
    }


@pytest.mark.skipif(COMM.size < 3, reason="needs somebody else to be busy with")
@pytest.mark.parametrize(
    ("length", "message_bytes"),
    [(40, None), (5000, None), (5000, 1000)],
    ids=["one chunk", "many chunks", "chunks in pieces"],
)
@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_exchanges_called_off_leave_the_mean(
    impatient, length, message_bytes, progress
):
    chance = np.random.default_rng([COMM.rank, length])
    x = chance.standard_normal(length)
    mean = COMM.allreduce(x, MPI.SUM) / COMM.size
    options = {"topology": "complete", "progress": progress, "max_lag": 4}
    options["message_bytes"] = message_bytes
    with Gossip(x, **impatient, **options) as gossip:
        for _ in range(GRADIENTS):
            gossip.apply(np.zeros(length))
    tally = gossip.engine.parts.tally
    called_off, exchanges = COMM.allreduce(
        np.array([tally.called_off, tally.exchanges])
    )
    np.testing.assert_allclose(x, mean, rtol=0, atol=1e-12)
    assert exchanges > GRADIENTS
    assert called_off > 0
