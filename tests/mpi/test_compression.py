"""Every compressor over real messages does what it does in memory."""

import numpy as np
import pytest
from mpi4py import MPI
from support.compression_promises import SHAPES, Draws, close, specs_of
from support.ranks_in_memory import Ranks

from acidmpi.compression.packing import widen
from acidmpi.compression.registry import make, names
from acidmpi.parallel.averager import Averager

COMM = MPI.COMM_WORLD
OPTIONS = {
    "powersgd": {"matrix_rank": 2, "start_step": 1, "min_compression_rate": 1},
    "acpsgd": {"matrix_rank": 2, "start_step": 1},
}
STEPS = 3
LAST_FIRST = tuple(reversed(range(len(SHAPES))))

pytestmark = [pytest.mark.mpi, pytest.mark.limit(60)]


def in_memory(compressor, specs):
    """What this rank should hold after each step."""
    ranks, draw = Ranks(compressor, specs, COMM.size, seed=3), Draws(specs, COMM.size)
    means = []
    for step in range(STEPS):
        gradients = draw()
        bucket = [[mine[index] for index in LAST_FIRST] for mine in gradients]
        ranks.reduce(bucket, LAST_FIRST, step)
        means.append(gradients[COMM.rank])
    return means


def over_messages(compressor, specs):
    draw, means = Draws(specs, COMM.size), []
    with Averager(specs, compressor, COMM, seed=3, deadline_seconds=30.0) as averager:
        for _ in range(STEPS):
            gradients = draw()[COMM.rank]
            for index, gradient in enumerate(gradients):
                averager.ready(index, gradient)
            averager.finish()
            means.append(gradients)
    return means


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in names()), ("none", "uint16")]
)
def test_messages_change_nothing(name, dtype):
    """To the rounding of sums, which MPI may make in another order."""
    compressor, specs = make(name, **OPTIONS.get(name, {})), specs_of(SHAPES, dtype)
    wanted, got = in_memory(compressor, specs), over_messages(compressor, specs)
    for mine, theirs in zip(got, wanted, strict=True):
        assert close(*map(widened, (mine, theirs)), dtype, widened(theirs))
    alike = COMM.allgather([array.tobytes() for mine in got for array in mine])
    assert all(other == alike[0] for other in alike)


def widened(arrays):
    return [widen(array).astype(np.float64) for array in arrays]
