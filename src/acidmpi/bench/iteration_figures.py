"""From the turns of all methods to figures: times, throughput, bytes, and a breakdown."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from acidmpi.bench.report import Figure

NONE, DDP, DDP_POWER = "none", "ddp", "ddp-powersgd"
"""No communication, and torch's own methods."""

LOW_RANK = ("powersgd", "acpsgd")
DEVIATIONS = 1.96
"""Of a normal distribution, between which 95 % lie."""


class Turn(NamedTuple):
    """What one turn of one method came to; seconds and bytes are of one iteration."""

    samples: tuple[float, ...]
    """Seconds on the slowest rank, one number for each repeat."""

    forward: float
    """This and the following: means over ranks."""

    backward: float
    update: float
    compress: float
    alone: float
    """To average gradients while nothing else is computed; 0 where it is not known."""

    bytes_sent: float
    """By a rank; 0 where it is not known."""

    @property
    def seconds(self) -> float:
        """Mean over repeats."""
        return statistics.fmean(self.samples)


class Scale(NamedTuple):
    """How large the job is."""

    batch_size: int
    ranks: int
    gradient_bytes: int
    unit: str
    """What a batch is made of, in the plural."""

    @property
    def dense_bytes(self) -> float:
        """What a rank sends in a ring all-reduce of all gradients: 2 (n − 1)/n of them."""
        return 2 * (self.ranks - 1) / self.ranks * self.gradient_bytes


def figures(turns: Mapping[str, Sequence[Turn]], scale: Scale) -> list[Figure]:
    """All that is reported.

    Args:
        turns: of each method, one for each round.
        scale: of the job.
    """
    found: list[Figure] = []
    for name, own in turns.items():
        found += _times(name, own, scale)
        found += _breakdown(name, own, turns.get(NONE))
        if any(turn.bytes_sent for turn in own):
            found.append(_bytes(name, own, scale))
    return [*found, *_costs(turns)]


def cost(own: Sequence[Turn], none: Sequence[Turn]) -> float:
    """Seconds that communication adds to an iteration: the median of the rounds."""
    pairs = zip(own, none, strict=True)
    return statistics.median(a.seconds - b.seconds for a, b in pairs)


def _times(name: str, own: Sequence[Turn], scale: Scale) -> Iterator[Figure]:
    samples = [sample for turn in own for sample in turn.samples]
    mean, spread = statistics.fmean(samples), DEVIATIONS * float(np.std(samples))
    each = scale.batch_size / mean
    yield Figure(
        name=f"iteration, {name}",
        value=1e3 * mean,
        unit="ms",
        note=f"± {1e3 * spread:.3g}",
    )
    yield Figure(name=f"spread (1.96 σ), {name}", value=1e3 * spread, unit="ms")
    yield Figure(
        name=f"throughput per rank, {name}", value=each, unit=f"{scale.unit}/s"
    )
    yield Figure(
        name=f"throughput, {name}", value=each * scale.ranks, unit=f"{scale.unit}/s"
    )


def _breakdown(
    name: str, own: Sequence[Turn], none: Sequence[Turn] | None
) -> Iterator[Figure]:
    parts = {
        "forward": [t.forward for t in own],
        "backward": [t.backward for t in own],
        "update": [t.update for t in own],
    }
    if any(t.alone for t in own):
        parts["compress"] = [t.compress for t in own]
    seconds = {part: statistics.median(values) for part, values in parts.items()}
    if none is not None and name != NONE:
        seconds["exposed"] = cost(own, none)
        if any(t.alone for t in own):
            alone = statistics.median(t.alone for t in own)
            seconds["hidden"] = max(0.0, alone - max(0.0, seconds["exposed"]))
    for part, value in seconds.items():
        beside = "backward" if part == "compress" else ""
        yield Figure(
            name=f"{part}, {name}",
            value=1e3 * value,
            unit="ms",
            rival=1e3 * seconds[beside] if beside else None,
            beside=beside,
        )


def _bytes(name: str, own: Sequence[Turn], scale: Scale) -> Figure:
    return Figure(
        name=f"bytes sent per rank and iteration, {name}",
        value=statistics.fmean(turn.bytes_sent for turn in own),
        unit="B",
        rival=scale.dense_bytes,
        beside="uncompressed",
    )


def _costs(turns: Mapping[str, Sequence[Turn]]) -> Iterator[Figure]:
    """What communication adds, beside what it adds to torch's own methods."""
    if NONE not in turns:
        return
    for rival in (DDP, DDP_POWER):
        for name in turns:
            if rival in turns and _comparable(name, rival):
                yield Figure(
                    name=f"communication, {name} beside {rival}",
                    value=1e3 * cost(turns[name], turns[NONE]),
                    unit="ms",
                    rival=1e3 * cost(turns[rival], turns[NONE]),
                    beside=rival,
                )


def _comparable(name: str, rival: str) -> bool:
    if name in (NONE, DDP, DDP_POWER):
        return False
    return rival == DDP or name in LOW_RANK
