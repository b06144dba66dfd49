"""The main job at full width: 64 ranks, default options, one ordinary machine."""

import contextlib
import json
from pathlib import Path

import pytest
from support import mpirun

RANKS = 64
LONGEST_SECONDS = 300
LARGEST_RANK_BYTES = 300 << 20
LOWEST_ACCURACY = 0.90
BY_RANK = ("gradients", "exchanges", "control_messages", "bytes_sent", "idle_seconds")


class Memory:
    """The largest proportional set size of each process below mpiexec."""

    def __init__(self) -> None:
        self.largest_bytes: dict[int, int] = {}
        self._calls = 0

    def sample(self, mpiexec: int) -> None:
        """Look at all processes, but not at every call: a look is work."""
        self._calls += 1
        if self._calls % 10:
            return
        for pid in mpirun.descendants(mpiexec):
            with contextlib.suppress(OSError):
                now = pss_bytes(pid)
                self.largest_bytes[pid] = max(now, self.largest_bytes.get(pid, 0))


def pss_bytes(pid: int) -> int:
    """Memory of a process, with shared pages divided among those who share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run, looked at by all tests here."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    memory = Memory()
    result = mpirun.run(
        RANKS,
        ["-m", "acidmpi.train", "--output", folder],
        timeout_seconds=LONGEST_SECONDS,
        on_poll=memory.sample,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((folder / "summary.json").read_text())
    print(
        result.stdout, {key: summary[key] for key in ("wall_seconds", "test_accuracy")}
    )
    return summary, memory, folder


def test_it_ends_by_itself_and_has_learnt(finished):
    summary, _, _ = finished
    assert summary["stop_reason"] == "finished"
    assert summary["size"] == RANKS
    assert summary["test_accuracy"] >= LOWEST_ACCURACY


def test_every_rank_took_part(finished):
    summary, _, folder = finished
    assert all(len(summary[key]) == RANKS for key in BY_RANK)
    assert min(summary["gradients"]) > 0
    assert min(summary["exchanges"]) > 0
    assert len(list(folder.glob("metrics-*.jsonl"))) == RANKS


def test_no_rank_is_large(finished):
    _, memory, _ = finished
    assert len(memory.largest_bytes) >= RANKS, "too few processes were seen"
    largest = max(memory.largest_bytes.values())
    print(f"largest rank: {largest / 2**20:.0f} MiB")
    assert largest <= LARGEST_RANK_BYTES
