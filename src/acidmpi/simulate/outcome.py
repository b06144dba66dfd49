"""What a simulated run came to, before it is printed, drawn or written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.dynamics.decay import decay, rounding_floor
from acidmpi.simulate.workload import Floats, Scores

DIVERGED = 1e6
"""A run ends when the consensus distance is so many times the first one and the squared
norm of the mean, which the ranks' disagreement does not move."""

FIT_SINCE = 0.2
"""Share of the run that the fit of a decay leaves out at its beginning."""


class Sample(NamedTuple):
    """All ranks at one moment."""

    time: float
    gradients: int
    """Of all ranks."""

    exchanges: int
    """Of all ranks; each counts once."""

    consensus_distance: float
    test_loss: float | None
    test_accuracy: float | None


@dataclass
class RankTotals:
    """What one rank did."""

    gradients: int = 0
    exchanges: int = 0
    """In which it took part."""

    bytes_sent: int = 0
    idle_units: float = 0.0
    """How long its computation waited."""

    control_messages: int = 0
    """Sent to find peers; ideal edges need none."""


@dataclass
class Outcome:
    """One run with one seed."""

    seed: int
    unit_seconds: float
    """Seconds of a unit, where a gradient of a rank that is not slow takes one."""

    totals: list[RankTotals]
    dimension: int = 1
    """Length of the vectors."""

    samples: list[Sample] = field(default_factory=list)
    coefficients: Coefficients = BASELINE
    chi_1: float | None = None
    chi_2: float | None = None
    mean_drift: float = 0.0
    """Largest error of an element of the mean, over the rms of x at the start, or at the
    end where that is larger."""

    floor: float = 0.0
    """Distances from here down are noise of rounding."""

    touched: int = 0
    """How many times a rank's vectors were worked on."""

    train_loss: float | None = None
    """Mean over the last tenth of the losses seen, where gradients tell one."""

    diverged: bool = False

    pairing: str = "ideal"
    """How peers find each other, where they do."""

    @property
    def times(self) -> list[float]:
        """Of the samples."""
        return [s.time for s in self.samples]

    @property
    def distances(self) -> list[float]:
        """Consensus distances of the samples."""
        return [s.consensus_distance for s in self.samples]

    def decay(self, since: float | None = None) -> float:
        """Slope, per unit, at which the log of the consensus distance falls.

        Args:
            since: units that the fit leaves out; by default a fifth of the run.
        """
        start = FIT_SINCE * self.times[-1] if since is None else since
        kept = [s for s in self.samples if s.time >= start]
        distances = [s.consensus_distance for s in kept]
        return decay([s.time for s in kept], distances, self.floor)

    @property
    def comm_rate(self) -> float | None:
        """Exchanges per rank and unit, measured; None before any time has passed."""
        last = self.samples[-1]
        if last.time == 0:
            return None
        return 2 * last.exchanges / (len(self.totals) * last.time)


def look(
    outcome: Outcome, time: float, distance: float, mean: Floats, scores: Scores
) -> None:
    """Add a sample, and note whether the ranks have lost each other.

    Args:
        outcome: gets the sample.
        time: of the sample.
        distance: the consensus distance.
        mean: of all ranks.
        scores: of the mean.
    """
    gradients = sum(t.gradients for t in outcome.totals)
    exchanges = sum(t.exchanges for t in outcome.totals) // 2
    outcome.samples.append(Sample(time, gradients, exchanges, distance, *scores))
    usual = max(outcome.distances[0], float(mean @ mean))
    if not distance <= DIVERGED * usual:
        outcome.diverged = True


def drift(mean: Floats, expected: Floats, start: Floats) -> float:
    """Largest error of an element of `mean`, relative to the rms of what was averaged."""
    scale = max(float(np.sqrt(np.mean(start**2))), float(np.sqrt(np.mean(expected**2))))
    return float(np.abs(mean - expected).max()) / (scale or 1.0)


def floor_of(x: Floats) -> float:
    """Consensus distance that rounding alone leaves behind."""
    return rounding_floor(x[0], "float64")


def median(values: Sequence[float | None]) -> float | None:
    """Of those that are known and finite; None where there is none."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.median(known)) if known else None


def late_distance(outcome: Outcome) -> float:
    """Mean consensus distance over the second half of a run; infinite if it diverged."""
    if outcome.diverged:
        return float("inf")
    late = outcome.distances[len(outcome.distances) // 2 :]
    return sum(late) / len(late)
