"""What happened when, in a fixed amount of memory however long the run.

Time is cut into equal bins. When an event falls behind the last one, bins are joined in
pairs and are twice as wide from then on: one pass over the events is enough, and between
half of the bins and all of them are in use at the end.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

BINS = 256
FIRST_WIDTH = 2.0**-8
"""Seconds. Widths are this times a power of two, so those of all ranks fit together."""

LONGEST_SECONDS = 1e12


class Timeline:
    """Sums and counts of named quantities in bins of time."""

    def __init__(self) -> None:
        self.width = FIRST_WIDTH
        """Seconds of one bin."""

        self._sums: dict[str, list[float]] = {}
        self._counts: dict[str, list[int]] = {}

    def add(self, name: str, seconds: float, value: float) -> None:
        """Count one event.

        Args:
            name: of the quantity.
            seconds: when, from the start of the run.
            value: what is summed.

        Raises:
            ValueError: `seconds` is no time.
        """
        if not 0 <= seconds < LONGEST_SECONDS:
            raise ValueError(f"seconds must be finite and not negative, got {seconds}")
        while seconds >= self.width * BINS:
            self._double()
        if name not in self._sums:
            self._sums[name] = [0.0] * BINS
            self._counts[name] = [0] * BINS
        bin_ = int(seconds / self.width)
        self._sums[name][bin_] += value
        self._counts[name][bin_] += 1

    def _double(self) -> None:
        self.width *= 2
        for table in (self._sums, self._counts):
            for name, values in table.items():
                joined = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
                table[name] = joined + [0] * (BINS - len(joined))  # type: ignore[assignment]

    def read(self, name: str, width: float) -> tuple[Values, Values]:
        """Sums and counts in bins of `width`, which is this timeline's or wider."""
        if name not in self._sums:
            return np.zeros(BINS), np.zeros(BINS)
        wider = round(width / self.width)
        sums, counts = (
            np.asarray(table[name], np.float64) for table in (self._sums, self._counts)
        )
        return _joined(sums, wider), _joined(counts, wider)


def together(timelines: Sequence[Timeline], name: str) -> tuple[Values, Values]:
    """Sums and counts of several timelines, in bins as wide as the widest's."""
    width = common_width(timelines)
    sums, counts = np.zeros(BINS), np.zeros(BINS)
    for timeline in timelines:
        more = timeline.read(name, width)
        sums, counts = sums + more[0], counts + more[1]
    return sums, counts


def common_width(timelines: Sequence[Timeline]) -> float:
    """Seconds of a bin when several timelines are read together."""
    return max((timeline.width for timeline in timelines), default=FIRST_WIDTH)


def _joined(values: Values, wider: int) -> Values:
    """`values` in bins `wider` times as wide, zeros behind."""
    short = values.reshape(-1, wider).sum(1) if wider <= BINS else [values.sum()]
    return np.pad(short, (0, BINS - len(short)))
