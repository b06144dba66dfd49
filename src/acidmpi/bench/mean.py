"""How well exchanges keep the mean over ranks of (x + x̃)/2, where nothing else moves it.

Exchanges follow one another without a pause until there have been enough; then all clocks
are flushed to one time and every rank is left with the mean, which should be that of the
start.
"""

import time

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.bench.options import ConsensusOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.saturation import saturated

AT_MOST = {"float32": 1e-6, "float64": 1e-13}
"""Change of the mean that rounding may cause, in units of rms(x)."""

LOOK_SECONDS = 0.05


def drift_figures(
    options: ConsensusOptions, comm: MPI.Comm, methods: list[str]
) -> list[Figure]:
    """One figure for each method and type."""
    return [
        _figure(options, comm, method, dtype) for method in methods for dtype in AT_MOST
    ]


def _figure(
    options: ConsensusOptions, comm: MPI.Comm, method: str, dtype: str
) -> Figure:
    drift, worst, exchanges = mean_drift(options, comm, method, dtype)
    return Figure(
        name=f"change of the mean, {method}, {dtype}",
        value=drift,
        unit="rms(x)",
        at_most=AT_MOST[dtype],
        note=f"after {exchanges:,} exchanges; {worst:.1e} at most",
    )


def mean_drift(
    options: ConsensusOptions, comm: MPI.Comm, method: str, dtype: str
) -> tuple[float, float, int]:
    """Change of the mean, as root mean square and at worst, relative to rms(x).

    Returns:
        Both, and the number of exchanges of all ranks together.
    """
    draw = np.random.default_rng([0, comm.rank])
    x = draw.standard_normal(options.size).astype(dtype)
    before = mean_over_ranks(x, comm)
    gossip = saturated(
        x,
        comm,
        topology=options.topology,
        method=method,
        comm_rate=options.comm_rate,
        deadline_seconds=options.deadline_seconds,
    )
    with gossip:
        exchanges = 0
        while exchanges < options.exchanges:
            time.sleep(LOOK_SECONDS)
            gossip.engine.check()
            exchanges = comm.allreduce(gossip.engine.parts.tally.exchanges) // 2
    change = mean_over_ranks(x, comm) - before
    rms = np.sqrt(np.mean(before**2))
    drift, worst = np.sqrt(np.mean(change**2)) / rms, np.abs(change).max() / rms
    return float(drift), float(worst), exchanges


def mean_over_ranks(
    values: NDArray[np.floating], comm: MPI.Comm
) -> NDArray[np.float64]:
    """Element by element, in float64."""
    total = np.empty(values.shape)
    comm.Allreduce(values.astype(np.float64), total)
    return total / comm.size
