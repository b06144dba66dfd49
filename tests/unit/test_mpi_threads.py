"""What each thread level of MPI allows; MPI starts in a child process at each level."""

import subprocess
import sys

import pytest

START = """
import mpi4py
mpi4py.rc.thread_level = {level!r}
from mpi4py import MPI
import numpy as np
from acidmpi.errors import AcidError
from acidmpi.mpi.threads import thread_level
from acidmpi.worker.gossip import Gossip

print(thread_level())
for progress in ("inline", "thread"):
    x = np.full(100, 3.0)
    try:
        with Gossip(
            x, comm=MPI.COMM_WORLD, progress=progress, deadline_seconds=20.0
        ) as gossip:
            for _ in range(5):
                gossip.apply(np.ones(100))
                gossip.poll()
        print("made", gossip.statistics().gradients, "gradients", x.sum())
    except AcidError as error:
        print(type(error).__name__, error)
"""

MADE = "made 5 gradients 800.0"


@pytest.mark.parametrize("level", ["funneled", "serialized", "multiple"])
def test_inline_runs_at_every_level_and_a_thread_where_it_may(level):
    code = START.format(level=level)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    granted, inline, thread = done.stdout.splitlines()
    if granted != f"MPI_THREAD_{level.upper()}":
        pytest.skip(f"this MPI grants {granted} instead of {level}")
    assert inline == MADE
    if level == "multiple":
        assert thread == MADE
        return
    assert thread.startswith("ThreadLevelError progress='thread' needs")
    assert f"this MPI was started with {granted}" in thread
    assert "use progress='inline' and call poll()" in thread
    assert "mpi4py.rc.thread_level = 'multiple'" in thread
