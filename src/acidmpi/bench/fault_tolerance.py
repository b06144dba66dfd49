"""What `--fault-tolerant` costs a training run in which nobody dies.

The same training, in turn with and without it, in one process for each rank. As in
`acidmpi.train` the goal is one of all ranks together, so that a rank that others have
slowed down holds up nobody. Time is what users wait for; processor time, all threads of a
rank together, is the same cost as seen on a machine that others use as well. Where cores
are shared, the two go together.

The launcher's own switch cannot take turns within a job: run the command again without
`--with-ft ulfm`, and compare the rows that it then shows alone.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from acidmpi.bench.options import FaultToleranceOptions
from acidmpi.bench.report import Figure
from acidmpi.errors import ConfigError
from acidmpi.mpi.survival import check_survivable
from acidmpi.tasks.registry import load_task, task_defaults

LEAST_SPEED = 0.97
"""Of the gradients a second without fault tolerance."""

MOST_CPU = 1.03

LR = 0.01
WARM_GRADIENTS = 20


class Turn(NamedTuple):
    """Sums over all ranks of one stretch of training."""

    seconds: float
    """Of the slowest rank."""

    cpu_seconds: float
    gradients: float
    exchanges: float
    """Each counted by both of its ends."""

    messages: float

    @property
    def speed(self) -> float:
        """Gradients of all ranks a second."""
        return self.gradients / self.seconds

    @property
    def cpu(self) -> float:
        """Milliseconds of processor time for each gradient."""
        return 1e3 * self.cpu_seconds / self.gradients

    @property
    def rate(self) -> float:
        """Exchanges of a rank for each of its gradients."""
        return self.exchanges / self.gradients

    @property
    def words(self) -> float:
        """Control messages for each exchange."""
        return 2 * self.messages / max(self.exchanges, 1.0)


def run(options: FaultToleranceOptions, comm: MPI.Comm) -> list[Figure]:
    """Train in turn with and without; without alone where MPI ends at a death."""
    ways = [False, True] if _survivable() else [False]
    turns: dict[bool, list[Turn]] = {way: [] for way in ways}
    for number in range(1 + options.rounds):
        for way in ways:
            turn = _turn(options, comm, way)
            if number:  # the first round is not counted
                turns[way].append(turn)
        ways.reverse()
    return figures(turns[False], turns.get(True, []))


def figures(without: list[Turn], within: list[Turn]) -> list[Figure]:
    """Medians over turns.

    Args:
        without: turns without fault tolerance.
        within: as many with it; empty where it was not to be had.
    """

    def of(name: str, unit: str, pick: Callable[[Turn], float], **asked: Any) -> Figure:
        base = statistics.median(pick(turn) for turn in without)
        if not within:
            note = "not started with `mpiexec --with-ft ulfm`: only this"
            return Figure(name=f"{name}, without", value=base, unit=unit, note=note)
        return Figure(
            name=name,
            value=statistics.median(pick(turn) for turn in within),
            unit=unit,
            rival=base,
            beside="without",
            **asked,
        )

    return [
        of("gradients a second", "1/s", lambda t: t.speed, at_least=LEAST_SPEED),
        of("processor time of a gradient", "ms", lambda t: t.cpu, at_most=MOST_CPU),
        of("exchanges for each gradient", "", lambda t: t.rate),
        of("control messages per exchange", "", lambda t: t.words),
    ]


def _survivable() -> bool:
    try:
        check_survivable()
    except ConfigError:
        return False
    return True


def _turn(options: FaultToleranceOptions, comm: MPI.Comm, tolerant: bool) -> Turn:
    """One stretch of training (collective)."""
    worker, step = _trainee(options, comm, fault_tolerant=tolerant)
    with worker:
        for _ in range(WARM_GRADIENTS):
            step()
        comm.Barrier()
        before = _counts(worker)
        while not worker.finished:
            step()
        mine = np.subtract(_counts(worker), before)
    sums = comm.allreduce(mine, MPI.SUM)
    slowest = comm.allreduce(float(mine[0]), MPI.MAX)
    return Turn(slowest, *sums[1:].tolist())


def _counts(worker: Any) -> list[float]:
    parts = worker.engine.parts
    return [
        time.perf_counter(),
        time.process_time(),
        parts.ledger.gradients,
        parts.tally.exchanges,
        parts.wire.sent,
    ]


def _trainee(
    options: FaultToleranceOptions, comm: MPI.Comm, **choices: Any
) -> tuple[Any, Callable[[], None]]:
    """A worker, and what makes one gradient."""
    task: Any = load_task(
        options.task,
        model=options.model,
        batch_size=options.batch_size,
        rank=comm.rank,
        size=comm.size,
        seed=options.seed,
    )
    goal = comm.size * (WARM_GRADIENTS + options.gradients)
    choices |= {
        "comm": comm,
        "total_gradients": goal,
        "topology": options.topology,
        "comm_rate": options.comm_rate,
        "seed": options.seed,
        "deadline_seconds": options.deadline_seconds,
    }
    trainee = _network if task_defaults(options.task).uses_torch else _vector
    return trainee(task, choices)


def _network(task: Any, choices: dict[str, Any]) -> tuple[Any, Callable[[], None]]:
    import torch

    from acidmpi.worker.torch.worker import Worker

    torch.set_num_threads(1)
    model, batches = task.make_model(), task.batches()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    worker = Worker(model, optimizer, **choices)

    def step() -> None:
        loss = task.loss(model, next(batches))
        loss.backward()
        worker.step(float(loss.detach()), zero_grad=True)

    return worker, step


def _vector(task: Any, choices: dict[str, Any]) -> tuple[Any, Callable[[], None]]:
    from acidmpi.worker.gossip import Gossip

    x = task.initial()
    gossip = Gossip(x, **choices)

    def step() -> None:
        gossip.apply(-LR * task.gradient(x, task.generator), task.loss(x))

    return gossip, step
