"""Exchanges per second when one is always due, and what it takes to find a peer."""

import statistics
import time

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.bench.lockstep import lockstep_rate
from acidmpi.bench.options import PairingOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.saturation import Counters, saturated
from acidmpi.errors import ConfigError

WARM_SECONDS = 0.3

MESSAGES = {16: 3.2, 64: 5.0}
"""Control messages per exchange that a ring of so many ranks may need."""

REPEATED = 0.1
"""Share of exchanges with the same peer as the one before that is accepted."""

BESIDE_LOCKSTEP = 0.6

RIVALS = {
    True: ("lockstep", "the same messages without pairing"),
    False: ("data alone", "the same exchanges without pairing or control messages"),
}
"""Loops of `bench.lockstep`, by whether they send control messages: name and note."""


def run(options: PairingOptions, comm: MPI.Comm) -> list[Figure]:
    """Count for a while; between two ranks in turn with the rival."""
    if comm.size < 2:
        raise ConfigError("pairing needs at least 2 ranks, got 1")
    if comm.size == 2:
        return _two(options, comm)
    counted, degree = _count(options, comm, options.seconds)
    return _figures(options, comm, counted, degree)


def _two(options: PairingOptions, comm: MPI.Comm) -> list[Figure]:
    """The loops in turn; medians over the rounds."""
    seconds = options.seconds / options.rounds
    rounds, rates = [], []
    for _ in range(options.rounds):
        counted, degree = _count(options, comm, seconds)
        rounds.append(counted)
        exchanges = max(1, round(counted.pairs_per_second * seconds))
        rates.append([_rival(options, comm, exchanges, control) for control in RIVALS])
    middle = sorted(rounds, key=lambda c: c.pairs_per_second)[len(rounds) // 2]
    own = statistics.median(c.pairs_per_second for c in rounds)
    beside = [
        Figure(
            name=f"exchanges a second beside {name}",
            value=own,
            unit="1/s",
            rival=statistics.median(rival),
            beside=name,
            at_least=BESIDE_LOCKSTEP,
            note=note,
        )
        for (name, note), rival in zip(
            RIVALS.values(), zip(*rates, strict=True), strict=True
        )
    ]
    return [*beside, *_figures(options, comm, middle, degree)]


def _rival(
    options: PairingOptions, comm: MPI.Comm, exchanges: int, control: bool
) -> float:
    accelerated = options.method == "a2cid2"
    return lockstep_rate(
        _values(options, comm),
        comm,
        exchanges,
        accelerated,
        options.deadline_seconds,
        control,
    )


def _count(
    options: PairingOptions, comm: MPI.Comm, seconds: float
) -> tuple[Counters, int]:
    """Sums over all ranks for so long, and the least number of neighbours of a rank."""
    gossip = saturated(
        _values(options, comm),
        comm,
        topology=options.topology,
        method=options.method,
        pairing=options.pairing,
        seed=options.seed,
        deadline_seconds=options.deadline_seconds,
    )
    with gossip:
        time.sleep(WARM_SECONDS)
        before = Counters.of(gossip)
        time.sleep(seconds)
        mine = Counters.of(gossip).since(before)
    degree = len(gossip.engine.parts.machine.neighbours)
    return mine.over_ranks(comm), comm.allreduce(degree, MPI.MIN)


def _values(options: PairingOptions, comm: MPI.Comm) -> NDArray[np.float32]:
    draw = np.random.default_rng([options.seed, comm.rank])
    return draw.standard_normal(options.size).astype(np.float32)


def _figures(
    options: PairingOptions, comm: MPI.Comm, counted: Counters, degree: int
) -> list[Figure]:
    ring = MESSAGES.get(comm.size) if options.topology == "ring" else None
    each = max(counted.exchanges, 1.0)
    return [
        Figure(
            name="exchanges a second, all ranks",
            value=counted.pairs_per_second,
            unit="1/s",
        ),
        Figure(
            name="exchanges a second, of one rank",
            value=2 * counted.pairs_per_second / comm.size,
            unit="1/s",
        ),
        Figure(
            name="control messages per exchange",
            value=counted.messages / (each / 2),
            unit="",
            at_most=ring,
        ),
        Figure(
            name="repeated pairs",
            value=counted.repeated / each,
            unit="",
            at_most=REPEATED if degree > 1 else None,
            note="" if degree > 1 else "a rank has one neighbour only",
        ),
    ]
