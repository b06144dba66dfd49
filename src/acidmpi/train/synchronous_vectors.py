"""Trainers of a NumPy vector whose ranks step together; no torch."""

from typing import Any, final

from numpy.typing import NDArray

from acidmpi.compression.protocol import Spec
from acidmpi.config.train import TrainConfig
from acidmpi.train.averagers import open_averager, open_dense_averager
from acidmpi.train.compressors import make_compressor
from acidmpi.train.course import Average, Scores
from acidmpi.train.gradients import (
    MomentumSGD,
    clipped,
    is_finite,
    nonfinite_error,
    told,
)
from acidmpi.train.plan import Plan
from acidmpi.train.synchronous import SynchronousCourse

Array = NDArray[Any]


@final
class AllReduce:
    """Averages the gradients of all ranks in each step; collective over `comm`.

    x stays the same on all ranks, to the last bit. Before each step they vote whether all
    gradients are finite, for a compressor would not forget one that is not.

    Args:
        task: a `Quadratic`.
        comm: the ranks.
        config: resolved options.
        plan: the work.
        metrics: where events are recorded.
    """

    def __init__(
        self, task: Any, comm: Any, config: TrainConfig, plan: Plan, metrics: Any
    ) -> None:
        self._task = task
        self._config = config
        self._x: Array = task.initial()
        self._sgd = MomentumSGD(self._x, plan.recipe)
        specs = [Spec(self._x.shape, self._x.dtype)]
        self._averager = open_averager(comm, config, specs, make_compressor(config))
        self.course = SynchronousCourse(
            self._averager, plan, comm.rank, comm.size, metrics
        )

    def step(self, rate: float) -> float:
        """One noisy gradient, its mean over ranks, then the update of SGD."""
        loss: float = self._task.loss(self._x)
        gradient = self._task.gradient(self._x, self._task.generator)
        if self._usable(gradient, loss):
            self._averager.ready(0, gradient)
            self._averager.finish()
            self._x += self._sgd.change(clipped(gradient, self._config.clip), rate)
        self.course.count(told(loss), rate)
        return loss

    def _usable(self, gradient: Array, loss: float) -> bool:
        """Whether all ranks' gradients are; or all raise."""
        if not self._averager.vote(not is_finite(gradient, loss)):
            return True
        if self._config.nonfinite == "raise":
            raise nonfinite_error("some rank")
        return False

    def scores(self) -> Scores:
        """Excess loss at x."""
        scores: Scores = self._task.evaluate(self._x)
        return scores

    def scores_of(self, average: Average) -> Scores:
        """Excess loss at x, which is the same on all ranks."""
        del average
        return self.scores()


@final
class LocalSGD:
    """Lets ranks step alone and averages x after every few steps; collective.

    The momentum stays each rank's own. Gradients that are not finite are left out on
    their rank only.

    Args:
        task: a `Quadratic`.
        comm: the ranks.
        config: resolved options.
        plan: the work.
        metrics: where events are recorded.
    """

    def __init__(
        self, task: Any, comm: Any, config: TrainConfig, plan: Plan, metrics: Any
    ) -> None:
        self._task = task
        self._config = config
        self._x: Array = task.initial()
        self._sgd = MomentumSGD(self._x, plan.recipe)
        averager = open_dense_averager(comm, config)
        self.course = SynchronousCourse(
            averager, plan, comm.rank, comm.size, metrics, parameters=[self._x]
        )

    def step(self, rate: float) -> float:
        """One noisy gradient and the update of SGD; now and then the average."""
        loss: float = self._task.loss(self._x)
        gradient = self._task.gradient(self._x, self._task.generator)
        if is_finite(gradient, loss):
            self._x += self._sgd.change(clipped(gradient, self._config.clip), rate)
        elif self._config.nonfinite == "raise":
            self.course.complain()
        self.course.count(told(loss), rate)
        self.course.average_every(self._config.local_steps)
        return loss

    def scores(self) -> Scores:
        """Excess loss at x."""
        scores: Scores = self._task.evaluate(self._x)
        return scores

    def scores_of(self, average: Average) -> Scores:
        """Excess loss at an average."""
        _, (x,) = average
        scores: Scores = self._task.evaluate(x)
        return scores
