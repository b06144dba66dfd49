"""`python -m acidmpi.train` on the ranks of a test, and what it leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acidmpi.tasks.classification import ClassificationTask
from acidmpi.train.cli import main
from support.staying import StayingComm

SLOW_DISK = "the one before is not written yet; raise --checkpoint-every"

Ends = list[tuple[int, str, str]]
"""Status, output and errors of every rank, by rank."""


def runner(comm: Any, capsys: Any) -> Callable[..., Ends]:
    """A function that runs the command on all ranks; collective."""

    def start(*arguments: object) -> Ends:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments], StayingComm(comm))
        said = capsys.readouterr()
        ends: Ends = comm.allgather((status, said.out, said.err))
        return ends

    return start


def only_rank_0_says(ends: Ends, status: int, *texts: str) -> None:
    """All ranks end alike; rank 0 has one line for it, and the others have none."""
    assert [end[0] for end in ends] == [status] * len(ends)
    lines = ends[0][2].splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("acidmpi: error: ")
    for text in texts:
        assert text in lines[0]
    assert all(errors == "" for _, _, errors in ends[1:])


def finished(ends: Ends) -> str:
    """All ranks end well and rank 0 alone says something: what it says.

    That a slow disk did not take a checkpoint in time may be said, and is no trouble.
    """
    assert [end[0] for end in ends] == [0] * len(ends)
    assert [line for end in ends for line in _troubles(end[2])] == []
    assert all(output == "" for _, output, _ in ends[1:])
    return ends[0][1]


def _troubles(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if SLOW_DISK not in line]


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def records_of(folder: Path, rank: int) -> list[dict[str, Any]]:
    lines = (folder / f"metrics-{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def spoil(monkeypatch: Any, comm: Any, change: Callable[[Any], Any]) -> None:
    """Let `change` make the loss of the last rank from its tenth batch on."""
    loss, calls = ClassificationTask.loss, iter(range(10**9))

    def spoilt(self: Any, model: Any, batch: Any) -> Any:
        value = loss(self, model, batch)
        late = comm.rank == comm.size - 1 and next(calls) >= 10
        return change(value) if late else value

    monkeypatch.setattr(ClassificationTask, "loss", spoilt)
