"""Real deaths of real processes: the others finish, and say who died."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from support import mpirun

from acidmpi.mpi.leaving import NOT_STARTED_STATUS

pytestmark = pytest.mark.skipif(
    not mpirun.is_open_mpi(), reason="only Open MPI lets ranks survive others"
)

LONGEST_SECONDS = 90
DRIFT = 1e-6

PLANS = {
    "rank 0, between two chunks": (4, "rank=0 at=chunk:57 do=kill"),
    "two at once": (4, "rank=1 at=gradient:60 do=kill; rank=2 at=gradient:60 do=kill"),
    "the recovery from another": (
        4,
        "rank=2 at=exchange:40 do=kill; rank=1 at=recovery:1 do=kill",
    ),
    "the final average": (4, "rank=0 at=final:2 do=kill; rank=3 at=final:3 do=kill"),
    "all but one": (
        4,
        "rank=0 at=heartbeat:3 do=kill; rank=1 at=request:20 do=kill; "
        "rank=3 at=exchange:50 do=kill",
    ),
    "moments of their own": (
        7,
        "rank=3 at=gradient:20~60 do=kill; rank=0 at=answer:15 do=kill",
    ),
}


def train(ranks, folder, plan, *options, tolerant=True):
    arguments = ["-m", "acidmpi.train", "--task", "quadratic", "--epochs", "1"]
    arguments += ["--deadline-seconds", "30", "--output", folder]
    arguments += ["--fault", plan] if plan else []
    return mpirun.run(
        ranks,
        [*arguments, *options],
        tolerant=tolerant,
        timeout_seconds=LONGEST_SECONDS,
    )


def victims(plan):
    return {int(fault.split("rank=")[1].split()[0]) for fault in plan.split(";")}


@pytest.mark.parametrize("name", PLANS)
def test_the_others_finish_and_tell(tmp_path, name):
    ranks, plan = PLANS[name]
    dead, folder = victims(plan), tmp_path / "run"
    result = train(ranks, folder, plan, "--fault-tolerant")
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stop_reason"] == "finished"
    assert {death["rank"] for death in summary["dead_ranks"]} == dead
    assert all(death["last"] for death in summary["dead_ranks"])
    left = [rank for rank, made in enumerate(summary["gradients"]) if made is not None]
    assert set(left) == set(range(ranks)) - dead
    made = sum(death["gradients"] for death in summary["dead_ranks"])
    assert made + sum(summary["gradients"][rank] for rank in left) >= 1000
    assert summary["mean_drift"] < DRIFT
    assert "of which died" in result.stdout, "the lowest survivor shows the results"


def test_survivors_go_on_from_their_checkpoint(tmp_path):
    folder, plan = tmp_path / "run", "rank=0 at=gradient:30 do=kill"
    often = ["--fault-tolerant", "--checkpoint-every", "0.3", "--evaluate-every", "0.5"]
    assert train(4, folder, plan, *often).returncode == 0
    again = train(3, folder, None, *often, "--epochs", "1.5", "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stop_reason"] == "finished"
    assert sum(summary["gradients"]) >= 1500


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
KILLED_IN_MPI = f"""
import threading
from acidmpi.mpi.start import Watch
def enter(watch, enter=Watch.__enter__):
    enter(watch)
    threading.Timer(0.03, exec, ({KILLED!r},)).start()
Watch.__enter__ = enter
"""
IF_VICTIM = "import os; os.environ['OMPI_COMM_WORLD_RANK'] == '{}' and exec({!r}); "


def start_of_mpi(victim, before, folder):
    """Ranks that train, one of which dies before it starts MPI, or soon after."""
    kill = IF_VICTIM.format(victim, KILLED if before else KILLED_IN_MPI)
    train = "from acidmpi.train.cli import main; raise SystemExit(main())"
    options = ["--task", "quadratic", "--fault-tolerant", "--output", folder]
    return mpirun.run(
        4,
        ["-c", kill + train, *options],
        tolerant=True,
        timeout_seconds=LONGEST_SECONDS,
    )


@pytest.mark.parametrize(("victim", "before"), [(2, True), (0, True), (1, False)])
def test_a_death_before_mpi_is_ready_is_told_and_ends_all(tmp_path, victim, before):
    began = time.monotonic()
    result = start_of_mpi(victim, before, tmp_path / "run")
    assert time.monotonic() - began < 60, "MPI itself would wait for ever"
    assert result.returncode == NOT_STARTED_STATUS, result.stdout + result.stderr
    told = [line for line in result.stderr.splitlines() if "acidmpi: error:" in line]
    assert len(told) == 1, "once on each node"
    assert "died before MPI was ready" in told[0]
    assert "start the ranks again (exit status 76)" in told[0]


@pytest.mark.parametrize(
    ("blind", "told"),
    [
        ("", "a rank died before MPI was ready"),
        ("start.somebody_is_gone = lambda: False; ", "MPI did not start within 4 s"),
    ],
)
def test_without_the_launchers_news_ranks_are_counted_and_time_is_up(blind, told):
    kill = IF_VICTIM.format(1, KILLED)
    deaf = "from acidmpi.mpi import pmix, start; pmix.pmix_library = lambda: None; "
    result = mpirun.run(
        3,
        ["-c", kill + deaf + blind + "start.start_mpi(4)"],
        tolerant=True,
        timeout_seconds=LONGEST_SECONDS,
    )
    assert result.returncode == NOT_STARTED_STATUS, result.stdout + result.stderr
    assert told in result.stderr


STARTS = {
    "rank 0, who makes the folder": (4, "rank=0 at=start:agree do=kill", []),
    "a graph that does not fit the others": (
        4,
        "rank=3 at=start:assemble do=kill",
        ["--topology", "hypercube"],
    ),
    "all but one, at different moments": (
        3,
        "rank=0 at=start:topology do=kill; rank=2 at=start:parameters do=kill",
        [],
    ),
    "the last moment, and others later": (
        5,
        "rank=1 at=start:assemble do=kill; rank=4 at=gradient:30 do=kill; "
        "rank=0 at=exchange:30 do=kill",
        [],
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_others_begin_again_after_a_death_at_the_start(tmp_path, name):
    ranks, plan, options = STARTS[name]
    starts = ";".join(part for part in plan.split(";") if "start:" in part)
    early = sorted(
        int(rank)
        for part in starts.split(";")
        for rank in part.split("rank=")[1].split()[0].split(",")
    )
    folder, left = tmp_path / "run", ranks - len(early)
    result = train(ranks, folder, plan, "--fault-tolerant", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stop_reason"] == "finished"
    assert summary["size"] == left == len(summary["gradients"])
    dead = summary["dead_ranks"]
    assert [death["rank"] for death in dead if death["at_start"]] == early
    later = len([death for death in dead if not death["at_start"]])
    assert (
        later == summary["gradients"].count(None) == plan.count(";") - starts.count(";")
    )
    counts = [made or 0 for made in summary["gradients"]]
    assert sum(counts) + sum(death["gradients"] for death in dead) >= 1000
    assert len(list(folder.glob("metrics-*.jsonl"))) == left
    assert f"{left} begin again" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_program_of_ones_own_begins_again_after_a_death_at_the_start():
    script = Path(__file__).with_name("begin_again.py")
    result = mpirun.run(3, [script], tolerant=True, timeout_seconds=40)
    told = sorted(result.stdout.splitlines())
    assert told == [f"of 1: mean 0.5 on rank {rank}" for rank in (0, 2)], result.stderr


def test_an_earlier_run_is_not_overwritten_after_a_death_at_the_start(tmp_path):
    folder = tmp_path / "run"
    assert train(2, folder, None).returncode == 0
    before = (folder / "summary.json").read_text()
    plan = "rank=1 at=start:agree do=kill"
    result = train(3, folder, plan, "--fault-tolerant")
    assert result.returncode == 1
    assert "holds an earlier run" in result.stderr
    assert (folder / "summary.json").read_text() == before


def test_without_the_option_a_death_ends_the_run(tmp_path):
    plan = "rank=1 at=exchange:30 do=kill"
    try:
        result = train(3, tmp_path / "run", plan, tolerant=False)
    except subprocess.TimeoutExpired:
        pytest.fail("the launcher without ULFM ends all ranks")
    assert result.returncode != 0


def test_an_mpi_that_does_not_survive_is_refused_at_once(tmp_path):
    result = train(2, tmp_path / "run", None, "--fault-tolerant", tolerant=False)
    assert result.returncode == 2
    assert "mpiexec --with-ft ulfm" in result.stderr
    assert "checkpoints" in result.stderr


@pytest.mark.parametrize("known", ["soon", "late"])
def test_last_words_of_the_dead_hide_nobody_elses(known):
    """Of 4 ranks 2 die; those that live must be heard, before and after the news."""
    script = Path(__file__).with_name("wire_of_mortals.py")
    result = mpirun.run(4, [script, known], tolerant=True, timeout_seconds=40)
    told = sorted(result.stdout.split("\n"))
    assert told == ["", "heard True True", "order True"], result.stdout + result.stderr
