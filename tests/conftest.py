"""Fixtures for all tests; MPI starts only for a test with ranks under `--with-mpi`."""

import faulthandler
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from support import mpirun

# Time on a shared machine says nothing about one example.
settings.register_profile("alone", deadline=None)
# All ranks must draw the same examples.
settings.register_profile("ranks", deadline=None, derandomize=True, database=None)

GUARD_SECONDS = 300.0


def pytest_configure(config: pytest.Config) -> None:
    """Choose how hypothesis draws, unless the command line says it."""
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("ranks" if config.getoption("--with-mpi") else "alone")
    if config.getoption("--with-mpi"):
        leave_out_compiler()


def leave_out_compiler() -> None:
    """Put nothing in the place of torch's compiler, which no test uses.

    Every optimizer's `step()` imports it to mark its edges for compiled functions: four
    seconds of a core on each rank. Torch, if a test uses it, finds this by itself.
    """
    compiler = ModuleType("torch._dynamo")
    compiler.graph_break = lambda *_args, **_options: None
    compiler.disable = lambda function, *_args, **_options: function
    sys.modules["torch._dynamo"] = compiler


@pytest.fixture(scope="session")
def guard_comm():
    """A communicator that no test uses, so that no lost message can disturb it."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    comm.Set_name("acidmpi tests: guard")
    return comm


@pytest.fixture(autouse=True)
def ranks_in_step(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no rank begin a test before all have ended the one before.

    A rank that failed early would otherwise send the next test's messages to ranks that
    are still in this one. A rank that waits too long ends all: only that reaches peers
    which hang inside MPI.
    """
    marker = request.node.get_closest_marker("mpi")
    if marker is None or not request.config.getoption("--with-mpi"):
        yield
        return
    comm = request.getfixturevalue("guard_comm")
    yield
    limit = request.node.get_closest_marker("limit")
    deadline = time.monotonic() + max(GUARD_SECONDS, limit.args[0] if limit else 0)
    barrier = comm.Ibarrier()
    while not barrier.Test():
        if time.monotonic() > deadline:
            print(f"rank {comm.rank}: other ranks never ended {request.node.nodeid}")
            faulthandler.dump_traceback(sys.__stderr__)
            comm.Abort(1)
        time.sleep(0.001)


RunRanks = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_ranks() -> RunRanks:
    """`run_ranks(4, "-m", "acidmpi.train", …, timeout_seconds=60)` from any test.

    Starts `python` with these arguments under this environment's mpiexec and returns
    the completed process with its output; on a timeout all ranks are ended.
    """

    def start(
        ranks: int, *arguments: str, timeout_seconds: float = 120.0, **options
    ) -> subprocess.CompletedProcess[str]:
        return mpirun.run(ranks, arguments, timeout_seconds=timeout_seconds, **options)

    return start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that all ranks see under one name."""
    from mpi4py import MPI

    shared: Path = MPI.COMM_WORLD.bcast(tmp_path)
    return shared


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command on all ranks; what comes back is as of `train_command.runner`."""
    from mpi4py import MPI
    from support import train_command

    return train_command.runner(MPI.COMM_WORLD, capsys)
