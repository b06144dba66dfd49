"""The examples of the documentation, as their readers run them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.tasks.lean import leave_out_compiler

COMM = MPI.COMM_WORLD
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

pytestmark = pytest.mark.mpi


def example(name):
    """A module that lies in no package."""
    leave_out_compiler()
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def embed():
    """An MPI code that trains beside its own work."""
    return example("embed")


@pytest.fixture(scope="module")
def undisturbed(embed):
    """What the solver finds without a worker beside it."""
    return embed.main(COMM, train=False)


def test_the_solver_solves(embed, undisturbed):
    assert undisturbed.residual < 5e-3
    assert len(undisturbed.solutions) == embed.BATCHES
    # The exact solution of the same equations, for the first right-hand side.
    size, number = embed.GRID, COMM.rank % max(1, COMM.size // 2)
    team = COMM.Split(number, key=COMM.rank)
    rows = embed.Poisson(team).rows
    team.Free()
    line = 2 * np.eye(size) - np.eye(size, k=1) - np.eye(size, k=-1)
    matrix = np.kron(line, np.eye(size)) + np.kron(np.eye(size), line)
    places = next(embed.batches(number))
    right = embed.bumps(places)[0].ravel() / (size + 1) ** 2
    exact = np.linalg.solve(matrix, right).reshape(size, size)[rows]
    found = undisturbed.solutions[0][0, 1:-1, 1:-1]
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.01 * exact.max())


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_both_do_their_work(embed, undisturbed, inline, capfd):
    result = embed.main(COMM, inline=inline)
    assert result.residual == undisturbed.residual
    for ours, theirs in zip(result.solutions, undisturbed.solutions, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.loss < 0.15
    assert COMM.size == 1 or result.exchanges > 0
    told = COMM.bcast(capfd.readouterr().out if COMM.rank == 0 else None)
    assert "solver: relative residual" in told
    assert f"loss {result.loss:.4f}" in told


def test_the_loop_learns(capfd):
    accuracy = example("train_torch").main(COMM)
    assert accuracy > 0.9
    assert len(set(COMM.allgather(accuracy))) == 1
    told = COMM.bcast(capfd.readouterr().out if COMM.rank == 0 else None)
    assert f"accuracy {accuracy:.3f}" in told


def test_mpi_is_left_as_it_was():
    # The caller's communicator still serves the caller, and nobody has ended MPI.
    assert not MPI.Is_finalized()
    assert COMM.allreduce(1) == COMM.size
