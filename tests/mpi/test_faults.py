"""Every event at which a fault can be ordered is one that really comes by."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.faults.plan import COUNTED, PHASES
from acidmpi.worker.gossip import Gossip

COMM = MPI.COMM_WORLD
pytestmark = pytest.mark.mpi

NOT_HERE = ("checkpoint", "recovery")
"""Events of their own tests."""
ALONE = ("gradient", "heartbeat", "average", "final")
"""Events of a rank that has no others."""


def test_every_event_is_reached(capsys):
    here = [event for event in COUNTED if event not in NOT_HERE]
    plan = [f"rank=all at={event}:1 do=pause:0" for event in here]
    plan += [f"rank=all at=start:{phase} do=pause:0" for phase in PHASES]
    plan += ["rank=all at=chunk:1-9 do=delay:0.001~0.002"]
    plan += ["rank=all at=message:1-9 do=delay:0~0.002"]
    options = {"total_gradients": 40 * COMM.size, "average_every": COMM.size}
    x = np.zeros(10)
    plan = "; ".join(plan)
    with Gossip(x, comm=COMM, fault=plan, deadline_seconds=30, **options) as gossip:
        while not gossip.finished:
            gossip.apply(np.ones(10))
    said = "".join(COMM.allgather(capsys.readouterr().err))
    expected = [f"{e} 1:" for e in here if COMM.size > 1 or e in ALONE]
    expected += [f"start:{phase}:" for phase in PHASES]
    assert [text for text in expected if f" at {text} pause" not in said] == []
    assert gossip.statistics().mean_drift < 1e-12
