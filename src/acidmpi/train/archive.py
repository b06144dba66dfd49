"""Writes the summary of a run, from whichever thread knows something worth keeping.

Guarantees: a partial summary never replaces the final one; two threads never write at
once.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress

from acidmpi.clocks import Clock
from acidmpi.config.train import TrainConfig
from acidmpi.telemetry.summary import (
    RankFigures,
    RunFigures,
    StopReason,
    make_summary,
    write_summary,
)
from acidmpi.train.course import Course, Figures, Scores
from acidmpi.train.folder import RunFolder
from acidmpi.train.outcome import rank_figures, run_figures


class Archive:
    """What rank 0, or its successor, keeps of a run.

    Args:
        config: the resolved options.
        folder: the run's.
        rank: this one.
        size: number of ranks.
        clock: where seconds come from.
        began: when the run began, on that clock.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        rank: int,
        size: int,
        clock: Clock,
        began: float,
    ) -> None:
        self._config = config
        self._folder = folder
        self._rank, self._size = rank, size
        self._clock = clock
        self._began = began
        self._lock = threading.Lock()
        self._final = False
        self.course: Course | None = None
        """Tells of this rank once it is there."""
        self.scores: Scores | None = None
        """The latest there are."""

    def figures(self, statistics: Figures | None, reason: StopReason) -> RunFigures:
        """What holds for the run as a whole by now."""
        return run_figures(
            self._config,
            self._size,
            statistics,
            self.scores,
            self._clock.now() - self._began,
            reason,
        )

    def keep(self, run: RunFigures, ranks: Sequence[RankFigures | None]) -> None:
        """Write the final summary.

        Raises:
            DataError: the folder cannot be written.
        """
        with self._lock:
            write_summary(self._folder.summary, make_summary(run, ranks))
            self._final = True

    def keep_partial(self, reason: StopReason) -> None:
        """Write what rank 0 knows by itself; if that fails too, there is no more to do.

        The caller has an error of its own to tell, or is about to be killed.
        """
        with self._lock, suppress(Exception):
            if not self._final:
                self._write_partial(reason)

    def _write_partial(self, reason: StopReason) -> None:
        statistics = None if self.course is None else self.course.statistics()
        own = None if statistics is None else rank_figures(statistics)
        ranks = [own if rank == self._rank else None for rank in range(self._size)]
        run = self.figures(statistics, reason)
        write_summary(self._folder.summary, make_summary(run, ranks))
