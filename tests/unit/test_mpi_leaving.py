"""Leaving a job that could not be started."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from acidmpi.mpi import leaving
from acidmpi.mpi.leaving import NOT_STARTED_STATUS, end_launcher


def test_one_rank_of_a_node_tells(monkeypatch, tmp_path, capfd):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(leaving, "end_launcher", lambda *_: None)
    monkeypatch.setenv("PMIX_SERVER_TMPDIR", str(tmp_path))
    for _ in range(3):
        leaving.leave_now("rank 3 died")
    assert left == [NOT_STARTED_STATUS] * 3
    assert capfd.readouterr().err == (
        "acidmpi: error: rank 3 died: start the ranks again (exit status 76)\n"
    )


def test_it_leaves_whatever_fails(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.delattr(leaving, "_is_first_to_tell")
    with pytest.raises(NameError):
        leaving.leave_now("rank 3 died")
    assert left == [NOT_STARTED_STATUS]


def test_without_the_launchers_folder_rank_0_tells(monkeypatch):
    monkeypatch.delenv("PMIX_SERVER_TMPDIR", raising=False)
    for rank, tells in (("0", True), ("1", False)):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
        assert leaving._is_first_to_tell() == tells


CHILD = """
import os, sys
from acidmpi.mpi.leaving import end_launcher
end_launcher(os.getppid(), float(sys.argv[1]))
"""


@pytest.fixture
def launcher(tmp_path):
    """A program of that name which starts one rank and then hangs."""
    shell = tmp_path / leaving.LAUNCHER
    shutil.copy("/bin/sh", shell)

    def start(seconds, then, program=shell):
        command = f"{sys.executable} -c '{CHILD}' {seconds}; {then}"
        return subprocess.Popen([program, "-c", command], stdout=subprocess.PIPE)

    return start


HANGS = "while :; do :; done"
BUSY = "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done"
"""For a second, without children."""


def test_a_launcher_that_hangs_is_ended(launcher):
    with launcher(0.2, HANGS) as process:
        assert process.wait(10) == -signal.SIGKILL


def test_a_launcher_that_ends_has_its_time_and_its_status(launcher):
    began = time.monotonic()
    with launcher(20, "exit 76") as process:
        process.stdout.read()  # nobody else holds its output
        assert process.wait(10) == 76
    assert time.monotonic() - began < 10


def test_ranks_that_go_on_are_let_alone(launcher):
    with launcher(0.1, "sleep 1; exit 3") as process:
        assert process.wait(10) == 3


COUNT = """
from acidmpi.mpi.leaving import somebody_is_gone
print(somebody_is_gone())
"""


@pytest.mark.parametrize(("started", "gone"), [(2, False), (3, True)])
def test_the_launchers_processes_are_counted(tmp_path, monkeypatch, started, gone):
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(started))
    for name, told in ((leaving.LAUNCHER, gone), (leaving.DAEMON, gone), ("sh", False)):
        shell = tmp_path / name
        shutil.copy("/bin/sh", shell)
        command = f"sleep 9 & {sys.executable} -c '{COUNT}'; kill $!"
        run = subprocess.run([shell, "-c", command], stdout=subprocess.PIPE, text=True)
        assert run.stdout.strip() == str(told)


def test_another_program_is_let_alone(launcher):
    with launcher(0, f"{BUSY}; exit 5", program="/bin/sh") as process:
        assert process.wait(10) == 5


def test_a_parent_that_is_no_launcher_is_no_matter():
    end_launcher(os.getpid(), 0)
