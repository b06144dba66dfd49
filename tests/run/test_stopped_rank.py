"""A rank that is really stopped: others go on, say what they wait for, and take it back."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support import mpirun

RANKS = 4
STOPPED = 2
RANK_VARIABLES = (b"OMPI_COMM_WORLD_RANK", b"PMI_RANK")
LONGEST_SECONDS = 60
DEADLINE_SECONDS = 20


def exchanges(folder, rank):
    """(seconds, peer) of each complete line of a rank's metrics."""
    path = folder / f"metrics-{rank}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(r["seconds"], r["peer"]) for r in records if r["kind"] == "exchange"]


def until(ready, what):
    end = time.monotonic() + LONGEST_SECONDS
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def pid_of(mpiexec, rank):
    """The process of a rank, found by its environment."""
    for pid in mpirun.descendants(mpiexec):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"acidmpi.train" in command and any(
            b"%s=%d" % (name, rank) in variables for name in RANK_VARIABLES
        ):
            return pid
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture
def run(tmp_path):
    folder, said = tmp_path / "run", (tmp_path / "said").open("w+")
    arguments = "-m acidmpi.train --task quadratic --epochs 1e6"
    deadline = ["--deadline-seconds", DEADLINE_SECONDS]
    process = mpirun.start(
        RANKS,
        [*arguments.split(), *deadline, "--output", folder],
        stdout=said,
        stderr=said,
    )
    with said, mpirun.ended_at_exit(process):
        yield process, folder
        said.seek(0)
        print(said.read())


def test_others_go_on_while_one_is_stopped_and_use_it_again(run):
    process, folder = run
    until(lambda: len(exchanges(folder, STOPPED)) > 50, "no exchanges")
    time.sleep(0.8)
    pid = pid_of(process.pid, STOPPED)
    os.kill(pid, signal.SIGSTOP)
    try:
        until((folder / "stalls.json").exists, "the stall is not told")
        time.sleep(0.6)
        made = {rank: exchanges(folder, rank) for rank in range(RANKS)}
    finally:
        os.kill(pid, signal.SIGCONT)
    stopped_at = made[STOPPED][-1][0]
    for rank, events in made.items():
        before = sum(stopped_at - 1 < seconds <= stopped_at for seconds, _ in events)
        # From a second on: until then some wait for the answer of the stopped one.
        during = [s for s, _ in events if s > stopped_at + 1]
        print(rank, "exchanges: last second before", before, "during", len(during))
    others = [made[rank] for rank in range(RANKS) if rank != STOPPED]
    busy = [sum(s > stopped_at + 1 for s, _ in events) for events in others]
    assert sum(count > 50 for count in busy) >= 2, "one may be in an exchange with it"

    (first, *_) = json.loads((folder / "stalls.json").read_text())["stalls"]
    assert first["roots"] == [STOPPED]
    assert [silent["rank"] for silent in first["silent"]] == [STOPPED]
    assert first["seen_by"] == 0

    ends = {rank: events[-1][0] for rank, events in made.items()}
    until(lambda: met_again(folder, ends) == {1, 3, STOPPED}, "it is not used again")
    # To a rank: mpiexec would kill all ranks a quarter of a second later.
    os.kill(pid, signal.SIGINT)
    process.wait(LONGEST_SECONDS)
    assert (folder / "summary.json").exists()


def met_again(folder, ends):
    """Ranks that have made an exchange with, or as, the stopped one since."""
    return {
        rank
        for rank, end in ends.items()
        for seconds, peer in exchanges(folder, rank)
        if seconds > end and STOPPED in (rank, peer)
    }
