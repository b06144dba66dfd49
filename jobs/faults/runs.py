"""One run of the trainer whose ranks may be killed from outside, as by `kill -9`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from acidmpi.mpi.leaving import NOT_STARTED_STATUS

LOOK_SECONDS = 0.02

MOST_STARTS = 5

SURPLUS = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_NUM_THREADS": "1",
}
"""More ranks than cores are welcome, and a container's root may start them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run is; `name` tells it from the others."""

    task: str
    ranks: int
    seed: int
    kills: int = 0
    tolerant: bool = True
    window_seconds: float = 0.0
    """Ranks die at moments drawn from so long after the start of the work."""
    start_seconds: tuple[float, float] | None = None
    """Or between these moments after all processes are there: while they make ready."""
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        when = "start" if self.start_seconds else "kill"
        kind = (
            f"{when}{self.kills}" if self.kills else "calm" if self.tolerant else "off"
        )
        return f"{self.task}-{self.ranks}-{kind}-{self.seed}"

    def command(self, folder: Path) -> list[str]:
        """What is started."""
        launch = ["mpiexec", "--with-ft", "ulfm", "-n", str(self.ranks)]
        train = [sys.executable, "-m", "acidmpi.train", "--task", self.task]
        choices = ["--seed", str(self.seed), "--output", str(folder), *self.options]
        tolerant = ["--fault-tolerant"] if self.tolerant else []
        return [*launch, *train, *choices, *tolerant]

    def moments(self) -> list[tuple[float, int]]:
        """When which rank dies, in order, seconds after what `_disturb` waits for."""
        chance = np.random.default_rng([self.seed, self.ranks, self.kills])
        ranks = chance.choice(self.ranks, self.kills, replace=False)
        low, high = self.start_seconds or (0, self.window_seconds)
        times = chance.uniform(low, high, self.kills)
        return sorted(zip(times.tolist(), ranks.tolist(), strict=True))


@dataclass
class Ending:
    """What became of a run."""

    status: int | None
    """Of mpiexec; None where the drill had to end it."""
    seconds: float
    """From start to end, as seen from outside."""
    killed: dict[int, float] = field(default_factory=dict)
    """When each rank was killed, seconds since 1970."""
    missed: list[int] = field(default_factory=list)
    """Ranks that had ended before their moment came."""
    starts: int = 0
    """More than one where a rank died before MPI was ready."""
    hung: int = 0
    """Launchers that hung after such a death and were ended."""
    summary: dict | None = None
    work_seconds: float | None = None
    """From the start of training to its end: without imports and the start of MPI."""
    said: str = ""
    """The last lines of its errors."""


def run(plan: Plan, folder: Path, limit_seconds: float) -> dict:
    """Start it, kill whom the plan kills, wait for the end; a record for JSON.

    When MPI could not start it is started again, as jobs/slurm/train.sbatch does.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    errors = folder.with_suffix(".log")
    began = time.monotonic()
    ending = Ending(None, 0.0)
    with errors.open("w") as log:
        while ending.starts < MOST_STARTS:
            ending.starts += 1
            _once(plan, folder, ending, log, began + limit_seconds)
            hung = ending.status == -signal.SIGKILL and not folder.exists()
            ending.hung += hung
            if ending.status != NOT_STARTED_STATUS and not hung:
                break
    ending.seconds = time.monotonic() - began
    ending.summary = _summary(folder)
    ending.work_seconds = _work_seconds(folder)
    ending.said = "\n".join(errors.read_text(errors="replace").splitlines()[-12:])
    return {"name": plan.name, **asdict(plan), **asdict(ending)}


def _once(plan: Plan, folder: Path, ending: Ending, log, until: float) -> None:
    """One start; ranks are killed in the first one."""
    job = subprocess.Popen(
        plan.command(folder),
        stdout=subprocess.DEVNULL,
        stderr=log,
        env={**SURPLUS, **os.environ},
        start_new_session=True,
    )
    ending.status = None
    try:
        if ending.starts == 1:
            _disturb(job, plan, folder, ending, until)
        ending.status = job.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end(job, folder)


def _disturb(job, plan: Plan, folder: Path, ending: Ending, until: float) -> None:
    """Kill the ranks of the plan, each at its moment."""
    if not plan.kills:
        return
    sign = folder / f"metrics-{plan.ranks - 1}.jsonl"

    def trains() -> bool:  # a death before that is one at the start
        return sign.exists() and sign.stat().st_size > 0

    def here() -> bool:
        return len(processes(folder)) == plan.ranks

    if not _wait(job, here if plan.start_seconds else trains, until):
        return
    start = time.monotonic()
    for moment, rank in plan.moments():
        _wait(job, lambda at=start + moment: time.monotonic() >= at, until)
        pid = processes(folder).get(rank)
        if pid is None:
            ending.missed.append(rank)
            continue
        os.kill(pid, signal.SIGKILL)
        ending.killed[rank] = time.time()


def _wait(job, true, until: float) -> bool:
    """Until `true()`, or the job has ended or is late; what came."""
    while not true():
        if job.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def processes(folder: Path) -> dict[int, int]:
    """The process of each rank of the run whose folder this is."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            settings = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or is somebody else's
        for setting in settings:
            name, _, value = setting.partition(b"=")
            if name == b"OMPI_COMM_WORLD_RANK" and str(folder).encode() in words:
                found[int(value)] = int(entry.name)
    return found


def _end(job, folder: Path) -> None:
    """Nothing of this run goes on."""
    if job.poll() is None:
        job.send_signal(signal.SIGTERM)
        try:
            job.wait(10)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
    for pid in processes(folder).values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _work_seconds(folder: Path) -> float | None:
    """The moment of the last record of rank 0."""
    try:
        last = (folder / "metrics-0.jsonl").read_text().splitlines()[-1]
        return float(json.loads(last)["seconds"])
    except (OSError, ValueError, IndexError):
        return None


def _summary(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return None
