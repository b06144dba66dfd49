"""When ranks that step alone average their parameters: now and then, or in every step.

Each opens the course of its run, and holds on to it.
"""

from collections.abc import Sequence
from typing import Any, Protocol, final

from numpy.typing import NDArray

from acidmpi.arrays.accelerator import accelerator_of
from acidmpi.parallel.neighbours import NeighbourAverager
from acidmpi.train.averagers import open_dense_averager
from acidmpi.train.bases import Setting
from acidmpi.train.synchronous import SynchronousCourse

Array = NDArray[Any]


class Meetings(Protocol):
    """The three moments of a step at which ranks may exchange."""

    course: SynchronousCourse

    def go_on(self) -> None:
        """The course goes on from a checkpoint."""
        ...

    def begin(self) -> None:
        """Before the gradient is computed; parameters stay as they are."""
        ...

    def finish(self) -> None:
        """Before the update; parameters may change."""
        ...

    def after(self) -> None:
        """The step is counted; parameters may change."""
        ...


def open_meetings(
    given: Setting, parameters: Sequence[Array], buffers: Sequence[Array] = ()
) -> Meetings:
    """What the method of a run asks for; collective.

    Args:
        given: the run.
        parameters: live arrays, which the method averages; `Buffers` where they lie on a
            device.
        buffers: further arrays that are averaged for evaluations and at the end.
    """
    kind = AllNowAndThen if given.config.method == "localsgd" else NeighboursAlways
    return kind(given, parameters, buffers)


@final
class AllNowAndThen:
    """Local SGD: all ranks average parameters and buffers after every few steps."""

    def __init__(
        self, given: Setting, parameters: Sequence[Array], buffers: Sequence[Array]
    ) -> None:
        self._every = given.config.local_steps
        self.course = _open_course(given, parameters, buffers)

    def go_on(self) -> None:
        """Nothing."""

    def begin(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""

    def after(self) -> None:
        """Average if it is time to."""
        self.course.average_every(self._every)


@final
class NeighboursAlways:
    """Synchronous gossip: x_{k+1} = (W x_k)_i − update_k, as in D-PSGD.

    Parameters travel while the gradient is computed at x_k.
    """

    def __init__(
        self, given: Setting, parameters: Sequence[Array], buffers: Sequence[Array]
    ) -> None:
        config = given.config
        self._neighbours = NeighbourAverager(
            parameters,
            given.comm,
            accelerator=accelerator_of(parameters),
            topology=config.topology,
            seed=config.seed,
            progress=config.progress,
            deadline_seconds=config.deadline_seconds,
        )
        self.course = _open_course(given, parameters, buffers)
        self.course.hold(self._neighbours)

    def go_on(self) -> None:
        """The graph of a step follows from its number."""
        self._neighbours.begin_at(self.course.steps)

    def begin(self) -> None:
        """Send parameters to the neighbours of this step."""
        self._neighbours.begin()

    def finish(self) -> None:
        """Wait for theirs, and average."""
        self._neighbours.finish()

    def after(self) -> None:
        """Record the exchanges as of this step: a checkpoint has both or neither."""
        meeting, sent_bytes = self._neighbours.meeting, self._neighbours.bytes_each
        self.course.exchanged(meeting.sources, sent_bytes, meeting.seconds)


def _open_course(
    given: Setting, parameters: Sequence[Array], buffers: Sequence[Array]
) -> SynchronousCourse:
    accelerator = accelerator_of(parameters)
    return SynchronousCourse(
        open_dense_averager(given.comm, given.config, accelerator),
        given.plan,
        given.comm.rank,
        given.comm.size,
        given.metrics,
        parameters=parameters,
        buffers=buffers,
        accelerator=accelerator,
    )
