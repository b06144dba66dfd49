"""How ranks end together: whatever comes in the last moment, all tell the same."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.worker import engine
from acidmpi.worker.gossip import Gossip
from acidmpi.worker.ledger import INTERRUPTED

COMM = MPI.COMM_WORLD

pytestmark = pytest.mark.mpi


def start(**options):
    return Gossip(np.ones(3), comm=COMM, deadline_seconds=30.0, **options)


def check_all_tell(gossip, expected):
    reasons = COMM.allgather((gossip.stop_reason, gossip.statistics().stop_reason))
    assert set(reasons) == {(expected, expected)}


def test_an_interruption_after_the_last_message_reaches_all():
    gossip = start()
    driver = gossip.engine.parts.driver
    finish = driver.finish

    def interrupted():
        finish()
        if COMM.rank == COMM.size - 1:
            gossip.stop()

    driver.finish = interrupted
    gossip.close()
    check_all_tell(gossip, "interrupted")


def test_an_interruption_after_the_end_changes_nothing():
    gossip = start()
    gossip.close()
    if COMM.rank == 0:
        gossip.engine.parts.ledger.raise_flags(INTERRUPTED)
    check_all_tell(gossip, "finished")


@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_interruptions_at_any_moment_of_the_end_are_told_alike(progress):
    """Each rank is stopped at another step of its way out."""
    for moment in range(6):
        gossip = start(progress=progress, comm_rate=0.0)
        loop = gossip.engine.parts.loop
        serve, steps = loop._serve, [0]

        def serve_and_stop(
            loop=loop, serve=serve, steps=steps, gossip=gossip, moment=moment
        ):
            if loop._pulse.all_done:
                steps[0] += 1
                if steps[0] == 1 + (moment + COMM.rank) % 3:
                    gossip.engine.parts.ledger.raise_flags(INTERRUPTED)
            serve()

        if COMM.rank % 2 == moment % 2:
            loop._serve = serve_and_stop
        gossip.close()
        reasons = set(COMM.allgather(gossip.stop_reason))
        assert len(reasons) == 1, moment


def test_a_keyboard_interrupt_is_an_orderly_end():
    x = np.full(4, float(COMM.rank))
    gossip = Gossip(x, comm=COMM, deadline_seconds=30.0)
    error = KeyboardInterrupt() if COMM.rank == 0 else None
    gossip.close(error)
    check_all_tell(gossip, "interrupted")
    np.testing.assert_allclose(x, (COMM.size - 1) / 2)
    assert gossip.clean


def test_closing_again_does_nothing(monkeypatch):
    gossip = start()
    gossip.close()
    monkeypatch.setattr(engine, "average_state", None)
    gossip.close()
    check_all_tell(gossip, "finished")
