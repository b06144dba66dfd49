"""The training loop of one rank: gradients until all ranks have done enough."""

import math
from collections import deque
from typing import final

from acidmpi.clocks import Clock
from acidmpi.train.course import Average, Scores, Trainer
from acidmpi.train.display import Display, Moment, number
from acidmpi.train.keeping import Kept
from acidmpi.train.plan import Plan
from acidmpi.train.signals import SignalWatch

RECENT_LOSSES = 100
"""How many of this rank's last losses make up its training loss."""


@final
class Loop:
    """Gradients, and between them a look at averages and the display.

    Args:
        trainer: makes a gradient.
        plan: how many, at which rates.
        watch: tells when to stop early.
        display: shows where the run stands.
        clock: where seconds come from; those shown count from here.
        kept: checkpoints, or None for none.
    """

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        watch: SignalWatch,
        display: Display,
        clock: Clock,
        kept: Kept | None = None,
    ) -> None:
        self._trainer = trainer
        self._course = trainer.course
        self._plan = plan
        self._watch = watch
        self._display = display
        self._clock = clock
        self._began = clock.now()
        recent = [] if kept is None else kept.recent_losses()
        self._losses: deque[float] = deque(recent, maxlen=RECENT_LOSSES)
        if kept is not None:
            kept.losses = lambda: list(self._losses)
        self.scores: Scores | None = None
        """Of the latest average that was evaluated; rank 0 has them."""

    @property
    def train_loss(self) -> float | None:
        """Mean of this rank's recent losses; None when it has none."""
        return math.fsum(self._losses) / len(self._losses) if self._losses else None

    def run(self) -> None:
        """Train; afterwards the parameters hold the average of all ranks."""
        with self._course:
            # From the thread that sees the signal: this one may be waiting for others.
            self._watch.then(self._course.stop)
            while not self._course.finished:
                self._step()
                self._look()

    def _step(self) -> None:
        loss = self._trainer.step(self._plan.rate(self._course.progress))
        if math.isfinite(loss):
            self._losses.append(loss)

    def _look(self) -> None:
        average = self._course.take_average()
        if average is not None and not self._watch.requested:
            self._evaluate(average)
        if self._display.due():
            self._display.moment(self._moment())

    def _evaluate(self, average: Average) -> None:
        """Rank 0 alone comes here; the others go on, or wait for it in their next step."""
        loss, accuracy = self.scores = self._trainer.scores_of(average)
        self._course.record(self.scores)
        scored = "" if accuracy is None else f"  accuracy {accuracy:.2%}"
        share = min(1.0, average[0] / self._plan.total_gradients)
        self._display.line(f"{share:4.0%} average: test loss {number(loss)}{scored}")

    def _moment(self) -> Moment:
        statistics = self._course.statistics()
        return Moment(
            seconds=self._clock.now() - self._began,
            gradients=statistics.total_gradients,
            total_gradients=self._plan.total_gradients,
            loss=self.train_loss,
            comm_rate=statistics.comm_rate_measured,
            consensus_distance=statistics.consensus_distance,
        )
