"""What ideal exchanges would reach: instantaneous, on Poisson clocks, in float64.

The reference of `acidmpi.dynamics.events` replays them; the slope of the logarithm of the
consensus distance is fitted as it is to what was measured.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from acidmpi.dynamics.coefficients import Coefficients
from acidmpi.dynamics.decay import decay, rounding_floor
from acidmpi.dynamics.events import Exchange, Reference
from acidmpi.topology.graph import Topology

Floats = NDArray[np.float64]

COORDINATES = 32
"""Length of the vectors that are replayed."""

REPLAYS = 8
"""Sequences of exchanges over which the decay is averaged."""


def ideal_decay(
    topology: Topology,
    comm_rate: float,
    coefficients: Coefficients,
    times: Sequence[float],
    generator: np.random.Generator,
) -> float:
    """Decay per unit of the consensus distance between the first and last of `times`.

    Args:
        topology: who may exchange with whom.
        comm_rate: exchanges per rank and unit.
        coefficients: constants made for that rate.
        times: when the distance is looked at, ascending.
        generator: where chance comes from.
    """
    return float(
        np.mean(
            [
                _replay(topology, comm_rate, coefficients, times, generator)
                for _ in range(REPLAYS)
            ]
        )
    )


def _replay(
    topology: Topology,
    comm_rate: float,
    coefficients: Coefficients,
    times: Sequence[float],
    generator: np.random.Generator,
) -> float:
    start = generator.standard_normal((topology.size, COORDINATES))
    reference = Reference(start, coefficients)
    events = _events(topology, comm_rate, coefficients.eta, times[-1], generator)
    waiting = next(events)
    distances = []
    for time in times:
        while waiting[0] <= time:
            reference.replay([waiting[1]])
            waiting = next(events)
        reference.flush(coefficients.eta * time)
        distances.append(reference.consensus_distance)
    return decay(times, distances, rounding_floor(reference.x[0], "float64"))


def _events(
    topology: Topology,
    comm_rate: float,
    eta: float,
    end: float,
    generator: np.random.Generator,
) -> Iterator[tuple[float, Exchange]]:
    """Exchanges in order of time, the last one after `end`."""
    rates = topology.rates(comm_rate)
    total = float(rates.sum())
    time = 0.0
    while time <= end:
        time += generator.exponential(1 / total)
        rank, peer = topology.edges[generator.choice(len(rates), p=rates / total)]
        yield time, Exchange(rank, peer, eta * time, eta * time)
