"""Trainers of a NumPy vector whose ranks step together; no torch."""

import math
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.compression.protocol import Spec
from acidmpi.train.averagers import open_averager
from acidmpi.train.bases import Setting, VectorBase
from acidmpi.train.compressors import make_compressor
from acidmpi.train.course import Average, Scores
from acidmpi.train.gradients import is_finite, nonfinite_error, told
from acidmpi.train.keeping import averager_states, vector_state
from acidmpi.train.meetings import open_meetings
from acidmpi.train.synchronous import SynchronousCourse

Array = NDArray[Any]


@final
class AllReduce(VectorBase):
    """Averages the gradients of all ranks in each step.

    x stays the same on all ranks, to the last bit. Before each step they vote whether all
    gradients are finite, for a compressor would not forget one that is not.

    Args:
        given: its task is a `Quadratic`.
    """

    def __init__(self, given: Setting) -> None:
        super().__init__(given)
        specs = [Spec(self._x.shape, self._x.dtype)]
        compressor = make_compressor(given.config)
        self._averager = open_averager(given.comm, given.config, specs, compressor)
        self.course = SynchronousCourse(
            self._averager, given.plan, given.comm.rank, given.comm.size, given.metrics
        )
        self.course.keep(given.kept, self._whole_state)
        if given.kept and given.kept.restart:
            self._averager.load_state_dict(averager_states(given.kept.restart))
            self._restore(vector_state(given.kept.restart))

    def _whole_state(self) -> dict[str, Any]:
        return self._state() | {"averager": self._averager.state_dict()}

    def step(self, rate: float) -> float:
        """One noisy gradient, its mean over ranks, then the update of SGD."""
        nothing = math.nan, np.zeros_like(self._x)
        loss, gradient = self.course.complaints.attempt(self._gradient, nothing)
        if self._usable(gradient, loss):
            self._averager.ready(0, gradient)
            self._averager.finish()
            self._x += self._change(gradient, rate)
        self.course.count(told(loss), rate)
        self.course.keep_if_due()
        return loss

    def _usable(self, gradient: Array, loss: float) -> bool:
        """Whether all ranks' gradients are; or all raise."""
        if not self._averager.vote(not is_finite(gradient, loss)):
            return True
        if self._config.nonfinite == "raise":
            self.course.hear_complaints()
            raise nonfinite_error("some rank")
        return False

    def scores_of(self, average: Average) -> Scores:
        """Excess loss at x, which is the same on all ranks."""
        del average
        return self.scores()


@final
class OwnSteps(VectorBase):
    """Lets ranks step alone, and averages x with others: local SGD, gossip.

    The momentum stays each rank's own. Gradients that are not finite are left out on
    their rank only.

    Args:
        given: its task is a `Quadratic`.
    """

    def __init__(self, given: Setting) -> None:
        super().__init__(given)
        self._meetings = open_meetings(given, [self._x])
        self.course = self._meetings.course
        self.course.keep(given.kept, self._state)
        if given.kept and given.kept.restart:
            self._restore(vector_state(given.kept.restart))
            self._meetings.go_on()

    def step(self, rate: float) -> float:
        """One noisy gradient and the update of SGD, and what the method averages."""
        self._meetings.begin()
        nothing = math.nan, np.zeros_like(self._x)
        loss, gradient = self.course.complaints.attempt(self._gradient, nothing)
        self._meetings.finish()
        if is_finite(gradient, loss):
            self._x += self._change(gradient, rate)
        elif self._config.nonfinite == "raise":
            self.course.complaints.add()
        self.course.count(told(loss), rate)
        self._meetings.after()
        self.course.keep_if_due()
        return loss
