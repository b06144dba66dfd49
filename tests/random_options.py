"""Random options for the command, to find what no test has thought of.

    mpiexec -n 3 python tests/random_options.py [--runs 200] [--seed 0]

Runs follow one another in the same processes. Each must end within `LIMIT_SECONDS`, on
all ranks with one status: 0, or another one and a single line that says why. About every
fourth goes on from a checkpoint that some of the ranks have written before. What ends
otherwise is printed with its options; then the exit status is 1. Leave the machine idle:
a rank without a core looks like one that hangs.
"""

import argparse
import contextlib
import faulthandler
import io
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from mpi4py import MPI
from support.staying import StayingComm

from acidmpi.config.train import ASYNCHRONOUS, USED_BY
from acidmpi.train.cli import main as command

LIMIT_SECONDS = 100
METHODS = ("a2cid2", "a2cid2", "async", "adpsgd", "gossip", "allreduce", "localsgd")
MISTAKES = 0.1
"""Share of runs whose options need not fit the method."""

VALUES = {
    "model": "mlp cnn lenet resnet18",
    "compression": "topk powersgd acpsgd qsgd signnorm randomk fp16 terngrad bogus",
    "matrix-rank": "1 2 100",
    "density": "0.001 1",
    "bits": "1 2 9",
    "start-step": "0 3",
    "bucket-bytes": "0 1 1e9",
    "local-steps": "1 3 1000",
    "topology": "ring path star complete exponential hypercube grid random-regular:2 1",
    "comm-rate": "0 0.01 3",
    "max-lag": "0 1 none",
    "pairing": "handshake schedule fifo",
    "progress": "thread inline",
    "transport": "auto host device staged",
    "chunk-bytes": "1 8 1000 1e9",
    "message-bytes": "100 1e6",
    "device": "auto cpu",
    "batch-size": "1 16 200",
    "lr": "1e-9 1 1e18",
    "momentum": "0 0.999",
    "weight-decay": "0 10",
    "evaluate-every": "0.01 0.1 100",
    "nonfinite": "raise skip",
    "clip": "1e-9 1",
    "seed": "0 4294967295",
    "dirichlet": "0.01 100",
    "heterogeneity": "0 3",
    "subset": "1 10 100000",
    "safety": "0 1",
    "checkpoint-every": "0.01 1",
    "log-seconds": "0.01 5",
}
"""For each option some usual values and some at the edge of what is taken."""

FAULTS = {
    "gradient": "nan raise pause:0.2 slow:3",
    "chunk": "delay:0.001~0.02 pause:0.1",
    "message": "delay:0.001~0.02",
    "checkpoint": "full raise pause:0.2",
    "average": "pause:0.2",
    "heartbeat": "pause:0.2",
}
"""Faults whose end is one that all ranks know; see docs/faults_to_order.md."""

OF_ONE_TASK = {
    "digits": ("model", "dirichlet", "subset"),
    "quadratic": ("heterogeneity",),
}


class End(NamedTuple):
    """How a run has ended on one rank."""

    status: int | None
    said: str
    trouble: str
    """A traceback, if the command has raised one."""


def draw(chance: random.Random) -> list[str]:
    """The options of one run, but for its folder."""
    task, method = chance.choice(list(OF_ONE_TASK)), chance.choice(METHODS)
    names = set(VALUES)
    if chance.random() > MISTAKES:
        names = {name for name in names if _fits(name, task, method)}
    some = chance.sample(sorted(names), chance.choice([0, 1, 2, 3, 5]))
    drawn = {name: chance.choice(VALUES[name].split()) for name in some}
    drawn |= {"task": task, "method": method, "deadline-seconds": "30"}
    drawn["epochs"] = "0.01" if drawn.get("model") == "resnet18" else "0.3"
    if chance.random() < 0.3:
        drawn["fault"] = _fault(chance, method)
    return [word for name, value in drawn.items() for word in (f"--{name}", value)]


def _fits(name: str, task: str, method: str) -> bool:
    field = name.replace("-", "_")
    others = {
        each for one, names in OF_ONE_TASK.items() if one != task for each in names
    }
    return method in USED_BY.get(field, METHODS) and name not in others


def _fault(chance: random.Random, method: str) -> str:
    event = chance.choice(list(FAULTS) if method in ASYNCHRONOUS else ["gradient"])
    actions = [a for a in FAULTS[event].split() if method in ASYNCHRONOUS or a != "nan"]
    action, rank = chance.choice(actions), chance.choice(["0", "1", "all", "random:1"])
    return f"rank={rank} at={event}:{chance.choice(['1', '3', '2~9'])} do={action}"


def run(arguments: list[str], comm: Any) -> End:
    """The command on this rank of `comm`."""
    said, status, trouble = io.StringIO(), None, ""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            status = command(arguments, StayingComm(comm))
        except BaseException:
            trouble = traceback.format_exc()
    return End(status, said.getvalue(), trouble)


def complaints(ends: list[End], planned: bool) -> list[str]:
    """What is wrong with how a run has ended, from all ranks."""
    found = [end.trouble for end in ends if end.trouble]
    if len({end.status for end in ends}) > 1:
        found.append(f"statuses {[end.status for end in ends]}")
    found += [end.said for end in ends if "Traceback" in end.said and not planned]
    errors = [line for line in ends[0].said.splitlines() if "acidmpi: error" in line]
    if ends[0].status != 0 and len(errors) != 1:
        found.append(f"{len(errors)} errors: {ends[0].said}")
    return found


def main() -> int:
    """All runs; 1 if any has ended as it must not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen, comm = parser.parse_args(), MPI.COMM_WORLD
    chance, wrong, counts = random.Random(chosen.seed), 0, Counter()
    place = Path(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None))
    for number in range(chosen.runs):
        arguments = [*draw(chance), "--output", str(place / str(number))]
        faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
        if chance.random() < 0.25:
            arguments = _begun(arguments, chance.randint(1, comm.size), comm)
        ends = comm.allgather(run(arguments, comm))
        found = complaints(ends, planned="do=raise" in " ".join(arguments))
        wrong += bool(found)
        counts[ends[0].status] += 1
        if comm.rank == 0 and found:
            print(f"run {number}: {' '.join(arguments)}", *found, sep="\n", flush=True)
    faulthandler.cancel_dump_traceback_later()
    comm.barrier()
    if comm.rank == 0:
        shutil.rmtree(place)
        print(f"runs by exit status: {dict(counts)}; not as they must: {wrong}")
    return int(wrong > 0)


def _begun(arguments: list[str], ranks: int, comm: Any) -> list[str]:
    """Let the first `ranks` write a checkpoint; what goes on from it."""
    arguments = [*arguments, "--checkpoint-every", "0.01"]
    some = comm.Split(comm.rank < ranks)
    if comm.rank < ranks:
        run(arguments, some)
    some.Free()
    comm.barrier()
    return [*arguments, "--epochs", "0.6", "--resume"]


if __name__ == "__main__":
    sys.exit(main())
