"""The events of a schedule: who exchanges when, the same list on every rank.

The events of all edges together are a Poisson process: the gaps are exponential with
the sum of the rates, and each event falls on an edge in proportion to its rate.

Guarantees:
- the list depends on the graph, the rate and the seed alone, to the last bit and on
  every platform: it takes raw bits from PCG64, whose stream NumPy fixes, and computes
  the logarithm with additions, multiplications and divisions only;
- it is made lazily, a block at a time, in constant memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from acidmpi.topology.graph import Floats, Integers, Topology

_BLOCK = 512
_STREAM = 0x5C4ED
"""Sets this use of the seed apart from every other one."""

_LN_2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_TERMS = 11


class Event(NamedTuple):
    """An exchange of the ranks `i` < `j` at `time` units."""

    time: float
    i: int
    j: int


class Meeting(NamedTuple):
    """One rank's view of an event."""

    time: float
    peer: int


class _Block(NamedTuple):
    times: Floats
    first: Integers
    second: Integers


def schedule_events(topology: Topology, comm_rate: float, seed: int) -> Iterator[Event]:
    """All events of all ranks in order of time, without end."""
    for times, first, second in _blocks(topology, comm_rate, seed):
        rows = zip(times.tolist(), first.tolist(), second.tolist(), strict=True)
        yield from map(Event._make, rows)


def meetings_of(
    rank: int, topology: Topology, comm_rate: float, seed: int
) -> Iterator[Meeting]:
    """The events in which `rank` takes part, in order of time."""
    for times, first, second in _blocks(topology, comm_rate, seed):
        mine = np.flatnonzero((first == rank) | (second == rank))
        peers = first[mine] + second[mine] - rank
        rows = zip(times[mine].tolist(), peers.tolist(), strict=True)
        yield from map(Meeting._make, rows)


def _blocks(topology: Topology, comm_rate: float, seed: int) -> Iterator[_Block]:
    # Sums in a fixed order: NumPy's own may depend on the processor.
    cumulative = np.cumsum(topology.rates(comm_rate))
    if not (cumulative.size and cumulative[-1] > 0):
        return
    first, second = topology.endpoints
    total_rate = float(cumulative[-1])
    shares = cumulative / total_rate
    bits = np.random.PCG64(np.random.SeedSequence([_STREAM, seed]))
    now = 0.0
    while True:
        gaps, marks = _uniform(bits), _uniform(bits)
        gaps = minus_log(1.0 - gaps) / total_rate
        gaps[0] += now
        times = np.cumsum(gaps)
        now = float(times[-1])
        edges = np.searchsorted(shares, marks, side="right")
        yield _Block(times, first[edges], second[edges])


def _uniform(bits: np.random.PCG64) -> Floats:
    """A block of multiples of 2^-53 in [0, 1)."""
    raw = np.asarray(bits.random_raw(_BLOCK), dtype=np.uint64)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def minus_log(values: Floats) -> Floats:
    """-log(values) for values in (0, 1], the same to the last bit everywhere.

    With v = m 2^e and m near 1, log v = e log 2 + 2 atanh((m - 1) / (m + 1)).
    """
    mantissa, exponent = np.frexp(values)
    small = mantissa < _SQRT_HALF
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    exponent = exponent - small
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    series = np.full_like(ratio, 1.0 / (2 * _TERMS + 1))
    for term in reversed(range(_TERMS)):
        series = series * square + 1.0 / (2 * term + 1)
    return -(exponent * _LN_2 + 2.0 * ratio * series)
