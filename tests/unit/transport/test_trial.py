"""Trials whose processes crash, hang, lie or refuse end in a verdict, never in an error.

Host memory stands in for a GPU's. Most processes here are small programs that leave the
files which a trial's process leaves, so that MPI starts twice only.
"""

import os

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.transport.trial.child import SIZES, difference, exchange, values
from acidmpi.transport.trial.environment import outside_of_the_job
from acidmpi.transport.trial.memory import HostMemory
from acidmpi.transport.trial.parent import trial

LEAVE = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def started(size=1): (folder / "0.started").write_text(json.dumps(size))
def found(**what): (folder / "0.json").write_text(json.dumps(what))
"""


@pytest.fixture
def program(tmp_path):
    """Makes a program from its lines."""

    def write(lines):
        path = tmp_path / "program.py"
        path.write_text(LEAVE + lines)
        return [str(path)]

    return write


def alone(program, seconds=20.0):
    return trial("host", seconds=seconds, alone=True, program=program)


def test_host_memory_travels_between_two_processes_and_back():
    verdict = trial("host", seconds=50.0)
    assert verdict.moved, verdict
    assert "two processes" in verdict.text


def test_a_machine_without_a_gpu_is_told_as_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    verdict = trial("cuda", seconds=50.0, alone=True)
    assert not verdict.moved
    assert "could not try it" in verdict.text


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("started(); os.kill(os.getpid(), signal.SIGSEGV)", "by SIGSEGV"),
        ("started(); sys.exit('MPI_ERR_BUFFER: nonsense')", "nonsense"),
        ("sys.exit(139)", "by SIGSEGV"),
        ("started()", "with status 0"),
        (
            "started(); found(tried=True, fault='7 bytes: 3 wrong')",
            "of 7 bytes: 3 wrong",
        ),
        ("started(); found(tried=False, fault='no device')", "no device"),
        (
            "started(); found(tried=True, fault=''); os.kill(os.getpid(), 9)",
            "by SIGKILL",
        ),
    ],
)
def test_what_goes_wrong_in_the_process_is_a_no_with_a_reason(program, lines, told):
    verdict = alone(program(lines))
    assert not verdict.moved
    assert told in verdict.text
    assert verdict.tried == ("started()" in lines)


def test_a_process_that_hangs_is_ended_at_the_deadline(program, tmp_path):
    pid = tmp_path / "pid"
    lines = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path({str(pid)!r}).write_text(str(os.getpid()))
started()
time.sleep(60)
"""
    verdict = alone(program(lines), seconds=1.0)
    assert not verdict.moved
    assert "hung" in verdict.text
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr("acidmpi.transport.trial.parent.PATIENCE_SECONDS", 0.2)


def test_the_process_itself_ends_when_it_may_not_be_ended_from_outside(program):
    """A stuck MPI call holds Python; the process's own timer does not need Python."""
    stuck = """
import numpy as np
from acidmpi.transport.trial import child
import ctypes
child.exchange = lambda *rest: ctypes.PyDLL(None).sleep(60)
sys.exit(child.main([*sys.argv[1:4], "1"]))
"""
    verdict = alone(program(stuck), seconds=40.0)
    assert not verdict.moved
    assert "with status 1" in verdict.text


def test_a_launcher_of_another_mpi_makes_the_trial_fall_back_to_one_process(
    program, tmp_path
):
    """Such a launcher starts ranks that each believe to be alone."""
    launcher = tmp_path / "mpiexec"
    launcher.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    launcher.chmod(0o755)
    lines = "started(); found(tried=True, fault='')"
    verdict = trial("host", seconds=20.0, launcher=launcher, program=program(lines))
    assert verdict.moved
    assert "sent to itself" in verdict.text


def test_a_launcher_that_starts_nothing_is_no_reason_to_give_up(program, tmp_path):
    launcher = tmp_path / "mpiexec"
    launcher.write_text("#!/bin/sh\nexit 3\n")
    launcher.chmod(0o755)
    lines = "started(); found(tried=True, fault='')"
    assert trial("host", launcher=launcher, program=program(lines)).moved


class Spoilt(HostMemory):
    """A planted fault: one bit of one byte is lost on the way."""

    def get(self, address, size):
        content = super().get(address, size)
        content[size // 2] ^= 1
        return content


class Untouched(HostMemory):
    """A planted fault: nothing arrives, the buffer stays as it was."""

    def get(self, address, size):
        return values(0, SIZES.index(size), size) ^ 0xFF


@pytest.mark.parametrize("memory", [Spoilt, Untouched])
def test_wrong_bytes_are_noticed(memory):
    assert "arrived wrong" in exchange(MPI.COMM_SELF, memory(), 20.0)


def test_right_bytes_are_right():
    assert exchange(MPI.COMM_SELF, HostMemory(), 20.0) == ""


def test_differences_are_counted_and_placed():
    expected = np.arange(10, dtype=np.uint8)
    arrived = expected.copy()
    arrived[[2, 7]] = 99
    assert difference(expected, arrived) == "2 arrived wrong, the first at 2, 7"


def test_a_child_inherits_settings_but_not_the_place_in_the_job():
    variables = {
        "PMIX_RANK": "3",
        "PMI_FD": "9",
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_MCA_num_procs": "4",
        "SLURM_PROCID": "3",
        "SLURM_JOB_ID": "11",
        "PALS_RANKID": "3",
        "OMPI_MCA_pml": "ucx",
        "UCX_TLS": "self,cuda_copy",
        "MPIR_CVAR_NOLOCAL": "1",
        "CUDA_VISIBLE_DEVICES": "2",
        "LD_LIBRARY_PATH": "/opt/ucx/lib",
    }
    kept = outside_of_the_job(variables)
    gone = set(variables) - set(kept)
    assert gone == {name for name in variables if "RANK" in name} | {
        "PMI_FD",
        "OMPI_MCA_num_procs",
        "SLURM_PROCID",
        "SLURM_JOB_ID",
    }
