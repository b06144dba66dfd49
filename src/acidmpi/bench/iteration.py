"""Time of a training iteration with each way to average gradients, beside rivals.

Methods take turns. In its turn a method builds its own copy of the model, warms up, is
timed, and is taken down again: so no two models need memory at once, and no thread of
one method lives while another is timed. An iteration takes as long as on the slowest
rank.
"""

import numpy as np
from mpi4py import MPI

from acidmpi.bench.iteration_figures import Scale, Turn, figures
from acidmpi.bench.iteration_methods import (
    Contestant,
    Parts,
    chosen,
    contestant,
    network,
)
from acidmpi.bench.models import Workload
from acidmpi.bench.options import IterationOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.timing import timed


def run(options: IterationOptions, comm: MPI.Comm) -> list[Figure]:
    """Let the methods take turns; collective.

    Raises:
        ConfigError: an unknown method or model, or options that do not fit each other.
    """
    names = chosen(options)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    scale = None
    with network(names, comm, options.deadline_seconds):
        for _ in range(options.rounds):
            for name in names:
                with contestant(name, options, comm) as ready:
                    turns[name].append(_turn(ready, options, comm))
                    scale = _scale(ready.workload, options, comm)
            names.reverse()
    assert scale is not None
    return figures(turns, scale)


def _turn(ready: Contestant, options: IterationOptions, comm: MPI.Comm) -> Turn:
    for _ in range(options.warmup):
        ready.iterate()
    parts: list[Parts] = []

    def repeat() -> None:
        parts.extend(ready.iterate() for _ in range(options.iterations))

    before = ready.counters()
    samples = [timed(comm, repeat) / options.iterations for _ in range(options.repeats)]
    added = ready.counters().since(before)
    alone = [ready.synchronise_alone(comm) for _ in range(options.iterations)]
    means = [*np.mean(parts, axis=0), *np.divide(added, len(parts)), np.mean(alone)]
    forward, backward, update, sent, compress, apart = _over_ranks(means, comm)
    return Turn(
        tuple(samples), forward, backward, update, compress, apart, bytes_sent=sent
    )


def _over_ranks(values: list[float], comm: MPI.Comm) -> list[float]:
    sums = np.empty(len(values))
    comm.Allreduce(np.array(values, float), sums)
    means: list[float] = (sums / comm.size).tolist()
    return means


def _scale(workload: Workload, options: IterationOptions, comm: MPI.Comm) -> Scale:
    held = [p.numel() * p.element_size() for p in workload.module.parameters()]
    return Scale(options.batch_size, comm.size, sum(held), workload.unit)
