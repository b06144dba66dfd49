"""The launcher of the tests with ranks: it must fail when a rank fails, in any way."""

import shutil
import subprocess
import sys
from pathlib import Path

import launcher
import pytest
from support import mpirun
from support.rank import Progress
from support.watch import START_SECONDS, Limits, State, complaint, read_states

TESTS = Path(__file__).parents[1]
HEAD = """
import os, time
import pytest
from mpi4py import MPI
comm = MPI.COMM_WORLD
"""
LIMITS = Limits(test_seconds=10.0, grace_seconds=2.0, total_seconds=1000.0)


def state(rank: int, **changes: object) -> State:
    """A rank that began a test at time 100."""
    usual = {"pid": 1, "test": "test_x", "phase": "call", "since": 100.0}
    return State(**({"rank": rank} | usual | changes))


def why(*states: State, now: float, ranks: int = 2) -> str | None:
    """What is wrong with a run that began at time 0."""
    return complaint({s.rank: s for s in states}, ranks, LIMITS, 0.0, now)


def test_ranks_within_their_limits_are_left_alone():
    assert why(state(0), state(1), now=109.0) is None


def test_a_rank_over_its_limit_is_named():
    found = why(state(0, since=105.0), state(1), now=111.0)
    assert found is not None
    assert "rank 1 is in test_x (call) for 11.0 s (limit 10 s)" in found


def test_limit_of_one_test_can_be_raised():
    assert why(state(0, limit=60.0), state(1, limit=60.0), now=159.0) is None
    assert why(state(0, limit=60.0), state(1, limit=60.0), now=161.0)


def test_nobody_waits_long_for_a_rank_that_failed_the_test():
    failed = state(0, phase="teardown", failed_at=101.0)
    assert why(failed, state(1), now=102.0) is None
    assert (
        why(failed, state(1), now=104.0) == "rank 0 failed it: rank 1 still in test_x"
    )


def test_a_failure_is_forgotten_with_the_next_test(tmp_path):
    progress = Progress(tmp_path, 0)
    progress.enter("test_x", "call", failed_at=50.0)
    assert read_states(tmp_path, 1)[0].failed_at == 50.0
    progress.enter("test_y", "call")
    assert read_states(tmp_path, 1)[0].failed_at is None


def test_nobody_waits_long_for_a_rank_that_left():
    left = state(0, test="leaving", status=0)
    assert why(left, state(1), now=103.0) == "rank 0 left: rank 1 still in test_x"
    about_to_leave = state(1, test="between tests", phase="after test_x")
    assert why(left, about_to_leave, now=103.0) is None


def test_ranks_that_do_not_start_and_runs_that_do_not_end_are_noticed():
    assert why(state(0, since=START_SECONDS), now=START_SECONDS) is None
    assert "[1]" in (why(state(0, since=START_SECONDS), now=START_SECONDS + 1) or "")
    assert why(state(0, since=1000.0), state(1, since=1000.0), now=1001.0)


@pytest.fixture
def launch(tmp_path):
    """Run the launcher on a test file of this text, with short limits."""

    def start(text: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_planted.py").write_text(HEAD + text)
        limits = ("-n", "3", "--limit-seconds", "3", "--grace-seconds", "1")
        command = [sys.executable, TESTS / "launcher.py", *limits, *options, tmp_path]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=90, cwd=tmp_path
        )

    return start


def stacks_by_rank(output: str) -> dict[int, str]:
    """What the launcher shows of each rank's stacks."""
    parts = output.split("==== launcher: rank ")[1:]
    return {int(part[0]): part for part in parts if "its stacks" in part}


def test_content_ranks_make_a_content_launcher(launch):
    result = launch("@pytest.mark.mpi\ndef test_all():\n    comm.barrier()\n")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("1 passed") == 1, "rank 0 is shown, the others are not"


def test_hang_of_one_rank_shows_the_stacks_of_all_and_leaves_no_process(
    launch, tmp_path
):
    result = launch(f"""
def sleeps_for_ever():
    while True:
        time.sleep(1)

@pytest.mark.mpi
def test_hangs():
    with open({str(tmp_path)!r} + f"/pid-{{comm.rank}}", "w") as file:
        file.write(str(os.getpid()))
    if comm.rank == 1:
        sleeps_for_ever()
    comm.barrier()
""")
    assert result.returncode == 1
    stacks = stacks_by_rank(result.stdout)
    assert sorted(stacks) == [0, 1, 2]
    assert all("test_planted.py::test_hangs (call)" in s for s in stacks.values())
    assert all("in test_hangs" in s for s in stacks.values())
    guilty = [rank for rank, text in stacks.items() if "in sleeps_for_ever" in text]
    assert guilty == [1]
    pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
    assert len(pids) == 3
    assert not any(mpirun.alive(pid) for pid in pids)


def test_failure_on_another_rank_is_shown_and_the_next_test_is_in_step(
    launch, tmp_path
):
    shutil.copy(TESTS / "conftest.py", tmp_path)
    result = launch("""
@pytest.mark.mpi
def test_one_fails():
    assert comm.rank != 2, "planted failure"
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert not comm.iprobe(), "a message of the next test"

@pytest.mark.mpi
def test_next_one():
    if comm.rank == 2:
        comm.send("next", 0)
    if comm.rank == 0:
        assert comm.recv(source=2) == "next"
""")
    assert result.returncode == 1
    assert "planted failure" in result.stdout
    assert "output of rank 2" in result.stdout
    assert "output of rank 1" not in result.stdout
    assert "2 passed" in result.stdout, "rank 0 went on to the second test"


def test_failure_that_leaves_others_waiting_is_shown_before_the_limit(launch):
    result = launch(
        """
@pytest.mark.mpi
def test_one_fails():
    assert comm.rank != 0, "planted failure"
    comm.barrier()
""",
        "--limit-seconds=80",
    )
    assert result.returncode == 1
    assert "planted failure" in result.stdout
    assert sorted(stacks_by_rank(result.stdout)) == [0, 1, 2]


def test_death_of_a_rank_is_reported(launch):
    result = launch("""
@pytest.mark.mpi
def test_dies():
    if comm.rank == 1:
        os._exit(3)
    comm.barrier()
""")
    assert result.returncode == 1
    assert "rank 1 ended early: it was in" in result.stdout
    assert "test_planted.py::test_dies" in result.stdout


WAITS = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR2, file=open(sys.argv[1], "w"))
print(flush=True)
time.sleep(60)
"""


def test_death_is_reported_too_where_mpi_leaves_the_others_to_wait(tmp_path, capsys):
    """They hear of it and fail, and the launcher gives up before mpiexec ends."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-c", WAITS, tmp_path / "rank-0.stacks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as waits:
        waits.stdout.readline()
        for rank, process in enumerate((waits, gone)):
            Progress(tmp_path, rank).enter("test_x", "call", pid=process.pid)
        launcher.show_hang("rank 0 failed it: rank 1 still in test_x", tmp_path, 2)
        waits.kill()
    said = capsys.readouterr().out
    assert "rank 1 ended early: it was in test_x" in said
    assert "rank 0 ended early" not in said
    stacks = stacks_by_rank(said)
    assert list(stacks) == [0]
    assert 'File "<string>"' in stacks[0]


def test_empty_selection_is_a_failure(launch):
    assert launch("def test_without_ranks(): pass\n", "-n", "1").returncode == 1
