"""The examples and the thread levels of MPI, in programs of their own."""

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RANKS = 3

LEVEL = """
import mpi4py
mpi4py.rc.thread_level = {level!r}
import numpy as np
from mpi4py import MPI
import acidmpi
x = np.full(4, float(MPI.COMM_WORLD.rank))
try:
    with acidmpi.Gossip(x, comm=MPI.COMM_WORLD, progress={progress!r}) as gossip:
        gossip.apply(np.zeros(4))
except acidmpi.errors.ThreadLevelError as error:
    print("refused:", error)
else:
    print("mean", x[0])
"""


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["embed.py"], r"residual .*e-0\d; surrogate: loss 0\.0\d+ after"),
        (["embed.py", "--inline"], r"residual .*e-0\d; surrogate: loss 0\.0\d+ after"),
        (["train_torch.py"], r"accuracy 0\.9\d+ after \d+ gradients of 3 ranks"),
        (
            ["distributed_optimizer.py"],
            r"accuracy 0\.9\d+, last loss .* after \d+ steps of 3 ranks",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_examples_run_and_learn(run_ranks, arguments, pattern):
    name, *rest = arguments
    result = run_ranks(RANKS, str(EXAMPLES / name), *rest)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    assert re.search(pattern, lines[0])


@pytest.mark.parametrize("level", ["funneled", "serialized", "multiple"])
@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_levels_that_are_enough(run_ranks, level, progress):
    program = LEVEL.format(level=level, progress=progress)
    result = run_ranks(RANKS, "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    enough = progress == "inline" or level == "multiple"
    told = "mean 1.0" if enough else "refused: progress='thread' needs MPI_THREAD_MULTI"
    assert [line[: len(told)] for line in result.stdout.splitlines()] == [told] * RANKS
