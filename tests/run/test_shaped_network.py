"""The slow network of jobs/local: as slow as it says, for MPI and gloo, and then gone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import mpirun

SCRIPT = Path(__file__).parents[2] / "jobs" / "local" / "shaped_network.sh"
PATH = f"{Path(mpirun.mpiexec_path()).parent}:{os.environ['PATH']}"
MEGABITS = 100
NUMBERS = 1_000_000
TRANSFER = f"""
import json, time
import numpy as np, torch
import torch.distributed as dist
from mpi4py import MPI
from acidmpi.bench.iteration_methods import network

comm = MPI.COMM_WORLD
vector = np.zeros({NUMBERS}, np.float32)

def timed(send):
    comm.Barrier()
    began = time.perf_counter()
    send()
    comm.Barrier()
    return time.perf_counter() - began

def mpi():
    comm.Send(vector, 1) if comm.rank == 0 else comm.Recv(vector, 0)

def gloo():
    tensor = torch.from_numpy(vector)
    dist.send(tensor, 1) if comm.rank == 0 else dist.recv(tensor, 0)

with network(["ddp"], comm, 60.0):
    found = {{f.__name__: min(timed(f) for _ in range(3)) for f in (mpi, gloo)}}
if comm.rank == 0:
    print(json.dumps(found))
"""


def shaped(*arguments, timeout_seconds=90.0):
    """The script's status, output and errors; nothing of it is left running."""
    process = subprocess.Popen(
        [SCRIPT, *map(str, arguments)],
        env=mpirun.environment() | {"PATH": PATH},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with mpirun.ended_at_exit(process):
        output, errors = process.communicate(timeout=timeout_seconds)
    return process.returncode, output, errors


@pytest.fixture(scope="module", autouse=True)
def permitted():
    status, _, errors = shaped("1mbit", "true")
    if status == 77:
        pytest.skip(errors.strip())
    assert status == 0, errors


@pytest.mark.parametrize("links", [False, True])
def test_messages_of_mpi_and_gloo_take_as_long_as_the_rate_says(links):
    rate, program = f"{MEGABITS}mbit", [sys.executable, "-c", TRANSFER]
    if links:
        status, output, errors = shaped("--links", 2, rate, *program)
    else:
        ranks = [mpirun.mpiexec_path(), "-n", 2, *program]
        status, output, errors = shaped(rate, *ranks)
    assert status == 0, errors
    expected = 8 * 4 * NUMBERS / (MEGABITS * 1e6)
    for name, seconds in json.loads(output.splitlines()[-1]).items():
        assert seconds == pytest.approx(expected, rel=0.25), name


def test_the_status_is_that_of_the_command_or_says_what_was_wrong():
    assert shaped("1mbit", "sh", "-c", "exit 5")[0] == 5
    status, output, errors = shaped("fast", "echo", "ran")
    assert (status, output) == (2, "")
    assert "got fast" in errors
    assert shaped("--links", 2, "fast", "echo", "ran")[:2] == (2, "")
    assert shaped("--links", "many", "1mbit", "echo", "ran")[:2] == (2, "")
    assert shaped("1mbit")[0] == 2


def test_nothing_is_changed_outside():
    seen = [sys.executable, "-c", "import os; print(os.readlink('/proc/self/ns/net'))"]
    queues = ["tc", "qdisc", "show"]
    before = subprocess.check_output(queues)
    own = str(Path("/proc/self/ns/net").readlink())
    _, cable, _ = shaped("1mbit", *seen)
    status, links, errors = shaped("--links", 2, "1mbit", *seen)
    assert status == 0, errors
    assert len({own, *cable.split(), *links.split()}) == 4
    assert subprocess.check_output(queues) == before
    assert "rank0" not in subprocess.check_output(["ip", "netns", "list"], text=True)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_it_says_when_it_is_not_permitted():
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with SCRIPT.open() as script:
        done = subprocess.run(
            [*nobody, "bash", "-s", "1mbit", "echo", "ran"],
            stdin=script,
            capture_output=True,
            text=True,
            timeout=30,
            cwd="/",
        )
    assert (done.returncode, done.stdout) == (77, "")
    assert "root" in done.stderr
