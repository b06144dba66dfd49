"""What checkpoints cost the compute loop, and how fast they are written.

Every rank holds a `Gossip` and makes steps: some computation, then an update of all
parameters. Stretches of steps without a checkpoint and with one take turns. What a
checkpoint costs is the time by which its stretch has fewer steps, as a share of a minute.
The speed of writing is that of the writer's thread, checksums and `fsync` included, beside
a plain write of as many bytes to the same folder, with `fsync`, between the stretches.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.bench.options import CheckpointOptions
from acidmpi.bench.report import Figure
from acidmpi.checkpoint.files import BLOCK_BYTES
from acidmpi.checkpoint.keeper import Keeper
from acidmpi.checkpoint.sets import Mark, Sets
from acidmpi.checkpoint.tree import Packed
from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import agreeing, broadcast
from acidmpi.worker.gossip import Gossip
from acidmpi.worker.keeping import Keeping

Array = NDArray[Any]

MINUTE_SECONDS = 60.0
MOST_SHARE = 5.0
LEAST_SPEED = 0.7
FAR = 10**15
"""Gradients between two marks, so that none is passed but those that are asked for."""

SIDE = 256


class TimedSets(Sets):
    """Sets that know how long their parts took to write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.seconds: list[float] = []
        self.copying: list[float] = []

    def write(self, mark: Mark, rank: int, packed: Packed) -> None:
        """Write one rank's part."""
        began = time.perf_counter()
        super().write(mark, rank, packed)
        self.seconds.append(time.perf_counter() - began)


class TimedKeeper(Keeper):
    """A keeper that knows how long its copies took."""

    copying: list[float]

    def take(self, state: Any) -> None:
        """Copy the state and have it written."""
        began = time.perf_counter()
        super().take(state)
        self.copying.append(time.perf_counter() - began)


def run(options: CheckpointOptions, comm: MPI.Comm) -> list[Figure]:
    """Measure on every rank at once; figures are of the rank that does worst."""
    place = _place(options, comm)
    try:
        shares, copying, ours, plain = _measure(options, comm, place)
    finally:
        comm.barrier()
        if comm.rank == 0:
            shutil.rmtree(place, ignore_errors=True)
    told = comm.allgather((shares, copying, ours, plain))
    share = max(float(np.median(each[0])) for each in told)
    copy = max(float(np.median(each[1])) for each in told)
    speeds = [float(np.median(np.divide(p, o))) for _, _, o, p in told]
    worst = int(np.argmin(speeds))
    gigabytes = 3 * 4 * options.size / 1e9
    return [
        Figure(
            name="compute loop, one checkpoint a minute",
            value=share,
            unit="% of its time",
            at_most=MOST_SHARE,
        ),
        Figure(name="one copy of the state", value=copy, unit="s"),
        Figure(
            name="writing a part",
            value=gigabytes / float(np.median(told[worst][2])),
            unit="GB/s",
            rival=gigabytes / float(np.median(told[worst][3])),
            beside="plain write and fsync",
            at_least=LEAST_SPEED,
        ),
    ]


def _place(options: CheckpointOptions, comm: MPI.Comm) -> Path:
    """A new folder that all ranks know.

    Raises:
        ConfigError: rank 0 cannot make one; the others hear of it.
    """
    place = None
    with agreeing(comm, options.deadline_seconds):
        if comm.rank == 0:
            place = _new_folder(options.folder)
    found = broadcast(comm, place, options.deadline_seconds, "a folder for checkpoints")
    return Path(found)


def _new_folder(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(dir=folder)
    except OSError as error:
        raise ConfigError(
            f"--folder must be a folder that can be written to, got {str(folder)!r} "
            f"({error.strerror}); name another one"
        ) from error


def _measure(
    options: CheckpointOptions, comm: MPI.Comm, place: Path
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Shares of a minute, and seconds of copies, of parts, and of plain writes."""
    sets = TimedSets(place)
    keeper = TimedKeeper(
        sets, rank=comm.rank, size=comm.size, session="bench", first=1, every=FAR
    )
    keeper.copying = []
    chance = np.random.default_rng(comm.rank)
    x, momentum, update = (
        chance.standard_normal(options.size, np.float32) for _ in range(3)
    )
    keeping = Keeping(keeper, lambda: {"momentum": momentum})
    shares, plain = [], []
    with Gossip(
        x, comm=comm, keeping=keeping, deadline_seconds=options.deadline_seconds
    ) as gossip:
        step = _step(gossip, update, options.step_seconds)
        for number in range(1, options.rounds + 2):
            without = _steps(step, options.seconds)
            keeper.passed(number * FAR)
            within = _steps(step, options.seconds)
            _wait(keeper, number, step, options.deadline_seconds)
            if number > 1:  # the first one maps the memory of the copy
                lost = options.seconds - within * options.seconds / without
                shares.append(100 * lost / MINUTE_SECONDS)
                plain.append(_plain_write(place / f"plain-{comm.rank}", x))
        # Now, because the end of the block keeps one more set.
        copying, parts = keeper.copying[1:], sets.seconds[1:]
    keeper.close()
    return shares, copying, parts, plain


def _step(gossip: Gossip, update: Array, seconds: float) -> Any:
    """A function that computes for about `seconds` and applies an update."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    began, turns = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        a @ a
        turns += 1

    def step() -> None:
        for _ in range(turns):
            a @ a
        gossip.apply(update)

    return step


def _steps(step: Any, seconds: float) -> float:
    """How many steps fit into so many seconds."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    return count * seconds / (time.perf_counter() - began)


def _wait(keeper: Keeper, number: int, step: Any, seconds: float) -> None:
    """Go on with steps until the part is written and the set decided."""
    began = time.perf_counter()
    while keeper.series.decided < number:
        step()
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"a set was not complete within {seconds:g} s")


def _plain_write(path: Path, x: Array) -> float:
    """Seconds of writing x three times and bringing it to the disk."""
    data = memoryview(x.view(np.uint8).data)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(3):
            for start in range(0, len(data), BLOCK_BYTES):
                file.write(data[start : start + BLOCK_BYTES])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds
