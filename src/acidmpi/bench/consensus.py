"""Pure averaging with real exchanges: how fast ranks agree, and whether the mean stays.

Every rank starts from its own normal random numbers and no gradient ever comes. At agreed
times each keeps a copy of x, mixed to that moment; once the run is over, the exact
consensus distances follow from the copies, and the slope of their logarithm is the decay.
Beside it stands what ideal exchanges reach on the same graph at the rate measured.
"""

import time
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.bench.ideal import ideal_decay
from acidmpi.bench.mean import drift_figures, mean_over_ranks
from acidmpi.bench.options import ConsensusOptions
from acidmpi.bench.report import Figure
from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.dynamics.decay import decay, rounding_floor
from acidmpi.errors import ConfigError
from acidmpi.worker.gossip import Gossip

Floats = NDArray[np.float64]

PAPER = 1.0
"""`safety`: the constants that theory is about."""

SAMPLES = 60
"""Copies that a rank keeps."""

LEAST_DECAY = {16: 0.19}
"""Per unit, of a2cid2 on a ring of so many ranks at one exchange a unit."""

LEAST_GAIN = {16: 2.0}
"""Decay of a2cid2 over that of the baseline, likewise."""


class Run(NamedTuple):
    """What one run came to, the same on all ranks."""

    decay: float
    comm_rate: float
    """As measured while the decay was."""

    ideal: float
    """Decay of ideal exchanges at that rate."""


def run(options: ConsensusOptions, comm: MPI.Comm) -> list[Figure]:
    """Let the ranks agree, again and again."""
    if comm.size < 2:
        raise ConfigError("a consensus needs at least 2 ranks, got 1")
    if options.since >= options.units:
        raise ConfigError(
            f"--since must lie before --units, got {options.since:g} and "
            f"{options.units:g}"
        )
    both = options.method == "both"
    methods: list[str] = ["a2cid2", "async"] if both else [options.method]
    runs: dict[str, list[Run]] = {method: [] for method in methods}
    for seed in range(options.seeds):
        for method in methods:
            runs[method].append(_run(options, comm, method, seed))
    figures = _figures(options, comm.size, runs)
    if options.exchanges:
        figures += drift_figures(options, comm, methods)
    return figures


def _run(options: ConsensusOptions, comm: MPI.Comm, method: str, seed: int) -> Run:
    x = _start(options, comm, seed)
    gossip = Gossip(
        x,
        comm=comm,
        topology=options.topology,
        method=method,
        comm_rate=options.comm_rate,
        safety=PAPER,
        unit_seconds=options.unit_seconds,
        seed=seed,
        deadline_seconds=options.deadline_seconds,
    )
    with gossip:
        samples = _watch(gossip, comm, options)
    units = np.array([s.units for s in samples])
    copies = np.array([s.x for s in samples])
    distances = consensus_distances(copies, comm)
    floor = _largest(rounding_floor(copies[-1], options.dtype), comm)
    rate = _rate(samples, comm)
    return Run(
        decay=decay(mean_over_ranks(units, comm), distances, floor),
        comm_rate=rate,
        ideal=_ideal(gossip, rate, options, seed, comm),
    )


class _Sample(NamedTuple):
    units: float
    exchanges: int
    x: NDArray[np.floating]


def _start(
    options: ConsensusOptions, comm: MPI.Comm, seed: int
) -> NDArray[np.floating]:
    draw = np.random.default_rng([seed, comm.rank])
    return draw.standard_normal(options.size).astype(options.dtype)


def _times(options: ConsensusOptions) -> list[float]:
    """When copies are taken, in units."""
    return [float(t) for t in np.linspace(options.since, options.units, SAMPLES)]


def _watch(gossip: Gossip, comm: MPI.Comm, options: ConsensusOptions) -> list[_Sample]:
    """Copies of x at about the same moments on all ranks."""
    parts = gossip.engine.parts
    comm.Barrier()
    began = time.perf_counter()
    samples = []
    for units in _times(options):
        time.sleep(max(0.0, began + units * options.unit_seconds - time.perf_counter()))
        gossip.engine.check()
        sample = _Sample(parts.units.now(), parts.tally.exchanges, gossip.read())
        samples.append(sample)
    return samples


def consensus_distances(copies: NDArray[np.floating], comm: MPI.Comm) -> Floats:
    """Mean over ranks of ‖x_i − x̄‖², for each row of every rank's `copies`."""
    away = copies - mean_over_ranks(copies, comm)
    return mean_over_ranks((away**2).sum(axis=1), comm)


def _largest(value: float, comm: MPI.Comm) -> float:
    found: float = comm.allreduce(value, MPI.MAX)
    return found


def _rate(samples: list[_Sample], comm: MPI.Comm) -> float:
    """Exchanges per rank and unit between the first sample and the last."""
    first, last = samples[0], samples[-1]
    exchanges = comm.allreduce(last.exchanges - first.exchanges)
    return float(exchanges / comm.allreduce(last.units - first.units))


def _ideal(
    gossip: Gossip, rate: float, options: ConsensusOptions, seed: int, comm: MPI.Comm
) -> float:
    """Computed by rank 0 for all."""
    found = 0.0
    if comm.rank == 0:
        graph = gossip.engine.parts.graph
        # The worker's constants are for the smaller of the asked and the measured rate.
        used = min(rate, options.comm_rate)
        accelerated = gossip.engine.options.method == "a2cid2"
        constants = (
            acid_coefficients(graph.chi_1, graph.chi_2, rate=used)
            if accelerated
            else BASELINE
        )
        chance = np.random.default_rng([seed, 1])
        found = ideal_decay(graph.topology, rate, constants, _times(options), chance)
    value: float = comm.bcast(found)
    return value


def _figures(
    options: ConsensusOptions, size: int, runs: dict[str, list[Run]]
) -> list[Figure]:
    known = size if options.topology == "ring" and options.comm_rate == 1 else 0
    figures = []
    for method, found in runs.items():
        decays = [r.decay for r in found]
        bound = LEAST_DECAY.get(known) if method == "a2cid2" else None
        figures += [
            Figure(
                name=f"decay of the distance, {method}",
                value=float(np.mean(decays)),
                unit="1/unit",
                at_least=bound,
                note=f"{min(decays):.3g} to {max(decays):.3g}",
            ),
            Figure(
                name=f"decay, {method}, beside theory",
                value=float(np.mean(decays)),
                unit="1/unit",
                rival=float(np.mean([r.ideal for r in found])),
                beside="ideal exchanges at the measured rate",
            ),
            Figure(
                name=f"exchanges per rank and unit, {method}",
                value=float(np.mean([r.comm_rate for r in found])),
                unit="1/unit",
                rival=options.comm_rate,
                beside="asked",
            ),
        ]
    if len(runs) == 2:
        ours, base = (float(np.mean([r.decay for r in f])) for f in runs.values())
        figures.append(
            Figure(
                name="decay of a2cid2 beside async",
                value=ours,
                unit="1/unit",
                rival=base,
                beside="async",
                at_least=LEAST_GAIN.get(known),
            )
        )
    return figures
