"""The course of methods in which all ranks step together: all-reduce, local SGD, gossip.

A step of `size` ranks is `size` gradient events. All ranks make the same number of steps,
so the total, evaluations and the learning rate are known without a message. What only one
rank knows, that a signal has asked for the end or that its gradient is not finite, is
summed over ranks in a *pulse*: a small sum after every k-th step, where k is chosen so that
pulses come `PULSE_SECONDS` apart. A sketch of the parameters goes with it.

Guarantees:
- every rank leaves at the same step and gives the same reason;
- a `NonFiniteError`, and an error of one rank's own computation, are raised by all ranks
  at the same step, so that nothing is left under way (see `complaints`); after any other
  error of one rank the others have a `RemoteError`, and what they wait for stays pending;
- an evaluation on the way works on copies, and changes nothing in the run.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import Accelerator, here
from acidmpi.arrays.site import HOST, HostSite
from acidmpi.clocks import Clock, WallClock
from acidmpi.errors import AcidError, DeadlineExceeded, NonFiniteError, PeerFailed
from acidmpi.mpi.reductions import MPIError
from acidmpi.parallel.averager import Averager
from acidmpi.telemetry.metrics import Metrics
from acidmpi.telemetry.stalls import Picture
from acidmpi.telemetry.summary import StopReason
from acidmpi.train.complaints import Complaints
from acidmpi.train.course import Average, Figures, Scores
from acidmpi.train.effort import Cost, Effort
from acidmpi.train.keeping import Kept, Restart
from acidmpi.train.news import News
from acidmpi.train.own_arrays import OwnArrays
from acidmpi.train.plan import Plan
from acidmpi.train.pulse import Pulse

Array = NDArray[Any]

LOST = (DeadlineExceeded, PeerFailed, MPIError)
"""After these some rank may still wait for another."""


@final
class SynchronousCourse:
    """Counts steps, asks all ranks whether to stop, and ends with their average.

    Owner: the training loop's thread; `stop` and `statistics` may be called from any.

    Args:
        averager: closed at the end; entered here.
        plan: the work.
        rank: this one.
        size: number of ranks.
        metrics: where events are recorded, or None.
        parameters: live arrays that differ between ranks and are averaged at the end.
        buffers: the same, but not counted in the distance between ranks.
        accelerator: the device that holds them; None is host memory.
        clock: where seconds come from.
    """

    def __init__(
        self,
        averager: Averager,
        plan: Plan,
        rank: int,
        size: int,
        metrics: Metrics | None,
        *,
        parameters: Sequence[Array] = (),
        buffers: Sequence[Array] = (),
        accelerator: Accelerator | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._averager = averager
        self._held = ExitStack()
        self._effort = Effort()
        self.hold(averager)
        self._total = plan.total_gradients
        self._every = plan.average_every
        self._rank, self._size = rank, size
        self._goal = math.ceil(plan.total_gradients / size)
        self._metrics = metrics
        self._accelerator = accelerator
        self._own = OwnArrays(
            parameters, buffers, size, accelerator, self._mean_over_ranks
        )
        self._clock = clock or WallClock()
        self._began = self._clock.now()
        self._pulse = Pulse(self._clock, leads=rank == 0)
        with here(accelerator):
            self._news = News(rank, size, self._own.parameters)
        self._steps = 0
        self._asked = self._stopping = False
        self.complaints = Complaints(rank, averager.gather)
        """Errors of this rank's own computation."""
        self._averaging_seconds = 0.0
        self._exchanges: int | None = None
        self._failure: BaseException | None = None
        self._reason: StopReason = "failed"
        self._average: Average | None = None
        self._distance: float | None = None
        """Estimated in pulses, exact from the final average on."""
        self._kept: Kept | None = None
        self._state: Callable[[], dict[str, Any]] = dict
        self._loss: float | None = None

    def hold(self, counting: Any) -> None:
        """Close this, too, at the end, before what was held earlier; count what it sends.

        Args:
            counting: a context manager that has `statistics()`.
        """
        self._held.enter_context(counting)
        self._effort.count(counting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
            return
        self._failure = error
        self._effort.freeze()
        try:
            if self.complaints.agreed or isinstance(error, NonFiniteError):
                self._held.close()
            else:
                self._held.__exit__(kind, error, traceback)
        except LOST as second:  # the error under way is the one to tell
            self._failure, self.complaints.agreed = second, False
        except AcidError:
            pass

    @property
    def steps(self) -> int:
        """Steps that all ranks have made."""
        return self._steps

    @property
    def finished(self) -> bool:
        """Whether the total is reached or the ranks have agreed to stop."""
        return self._stopping or self._steps >= self._goal

    @property
    def progress(self) -> float:
        """Share of the total that is done; the same on all ranks."""
        return min(1.0, self._steps * self._size / self._total)

    @property
    def stop_reason(self) -> StopReason:
        """Once left, the same on all ranks."""
        return self._reason

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self._rank == 0

    @property
    def told(self) -> bool:
        """Whether all ranks know of the end."""
        return not isinstance(self._failure, LOST)

    @property
    def clean(self) -> bool:
        """Whether nothing is left pending: what other ranks never joined cannot end."""
        together = self.complaints.agreed or isinstance(self._failure, NonFiniteError)
        return self._failure is None or together

    def stop(self) -> None:
        """Ask all ranks to stop at the next pulse."""
        self._asked = True

    def count(self, loss: float | None, rate: float) -> None:
        """One step is made: record it, hear the others if it is time to; collective.

        Args:
            loss: this rank's, or None.
            rate: the learning rate, for the record.
        """
        self._steps += 1
        self._loss = loss
        if self._metrics is not None:
            self._metrics.gradient(*self._stamp(), loss, rate)
        if self._pulse.due(self._steps):
            self._hear()
        if self._evaluates():
            self._take_copies()

    def exchanged(self, peers: Sequence[int], sent_bytes: int, seconds: float) -> None:
        """Parameters came from these ranks: one exchange with each.

        Args:
            peers: whose they were.
            sent_bytes: what went to each of as many.
            seconds: how long they were under way.
        """
        self._exchanges = (self._exchanges or 0) + len(peers)
        if self._metrics is not None:
            for peer in peers:
                self._metrics.exchange(*self._stamp(), peer, sent_bytes, seconds)

    def keep(self, kept: Kept | None, state: Callable[[], dict[str, Any]]) -> None:
        """Have checkpoints written after steps, and go on from one; before the first.

        Args:
            kept: checkpoints, or None for none.
            state: what the trainer owns, as a tree.
        """
        self._kept, self._state = kept, state
        if kept is not None and kept.restart is not None:
            self._go_on(kept.restart)

    def _go_on(self, restart: Restart) -> None:
        """Counts are this rank's own; among other ranks only steps are known."""
        if restart.same:
            own = restart.own
            self._steps, self._exchanges = own["steps"], own["exchanges"]
            self._effort.earlier = Cost(
                own.get("bytes_sent", 0), own.get("idle_seconds", 0.0)
            )
        else:
            self._steps = restart.total_gradients // self._size

    def keep_if_due(self) -> None:
        """The step is over: take this rank's part of a checkpoint if one is due.

        All ranks do so after the same step, each by itself; one that has an error of its
        own does not, so that no set is complete with what it did since.
        """
        if self._kept is not None and not self.complaints.any:
            keeper = self._kept.keeper
            keeper.passed(self._steps * self._size)
            if keeper.wants:
                keeper.take(self._tree)

    def _tree(self) -> dict[str, Any]:
        assert self._kept is not None
        state = self._state()
        position = state["position"] | {"losses": self._kept.losses()}
        caller = state | {"position": position, "loss": self._loss}
        counts = {"steps": self._steps, "exchanges": self._exchanges}
        return {**counts, **self._cost()._asdict(), "caller": caller}

    def _keep_last(self, interrupted: bool) -> None:
        """Take a last part if there is to be one; collective."""
        if self._kept is None:
            return
        keeper = self._kept.keeper
        words = np.array(keeper.last_words(interrupted), np.float64)
        self._mean_over_ranks([words])
        if keeper.takes_last(words * self._size):
            self._loss = None  # the training loop has it among its recent ones by now
            keeper.take_last(self._tree, self._steps * self._size)

    def take_average(self) -> Average | None:
        """What is to be evaluated, on rank 0."""
        average, self._average = self._average, None
        return average

    def record(self, scores: Scores) -> None:
        """Put an evaluation into the metrics."""
        if self._metrics is not None:
            self._metrics.evaluation(*self._stamp(), *scores)

    def watch_stalls(self, tell: Callable[[Picture], None]) -> None:
        """Nothing to do: all ranks wait for the slowest in every step."""

    def statistics(self) -> Figures:
        """What has happened so far."""
        device: Accelerator | HostSite = self._accelerator or HOST
        return Figures(
            **self._cost()._asdict(),
            gradients=self._steps,
            total_gradients=self._steps * self._size,
            exchanges=self._exchanges or 0,
            comm_rate_measured=self._rate(),
            transport="host" if device is HOST else "staged",
            device=device.name,
            device_uuid=device.uuid,
            consensus_distance=self._distance,
        )

    def average_every(self, steps: int) -> None:
        """Replace what differs between ranks by its mean after so many steps; collective.

        After the last planned step it is left to the end, which averages anyway. Where
        a run is stopped it is not: who goes on from there has to have averaged.

        Raises:
            NonFiniteError: a rank has complained; all raise it.
        """
        if self._steps % steps == 0 and self._steps < self._goal:
            self.hear_complaints()
            self._own.average()

    def hear_complaints(self) -> None:
        """Raise on all ranks if any complains; collective."""
        told = self._news.complaints(self.complaints.any)
        self._mean_over_ranks([told])
        self.complaints.check(self._news.complaint(told))

    def _cost(self) -> Cost:
        """Of this rank, averages included."""
        mine = Cost(self._own.bytes_sent, self._averaging_seconds)
        return self._effort.cost().plus(mine)

    def _rate(self) -> float | None:
        """Exchanges for each gradient, where there are any."""
        if self._exchanges is None:
            return None
        return self._exchanges / max(self._steps, 1)

    def _mean_over_ranks(self, arrays: list[Array]) -> None:
        """Average; the time is one of waiting for the slowest rank."""
        began = self._clock.now()
        self._averager.average(arrays)
        self._averaging_seconds += self._clock.now() - began

    def _hear(self) -> None:
        asked = self._pulse.ask(self._asked, self._steps)
        with here(self._accelerator):
            told = self._news.tell(asked, self.complaints.any)
        told = self._hear_of_checkpoints(told)
        heard = self._news.hear(told)
        self._stopping = self._pulse.hear(heard.pulse, self._steps)
        self._distance = heard.distance
        if self._metrics is not None:
            figures = self._steps * self._size, self._rate(), heard.distance
            self._metrics.heartbeat(*self._stamp(), *figures)
        self.complaints.check(heard.complaint)

    def _hear_of_checkpoints(self, told: Array) -> Array:
        """The mean of what ranks say; what they say of checkpoints rides on it."""
        keeper = None if self._kept is None else self._kept.keeper
        sets = [] if keeper is None else list(keeper.contribution())
        both = np.concatenate([told, np.array(sets, np.float64)])
        self._mean_over_ranks([both])
        if keeper is not None:
            keeper.hear(*(both[told.size :] * self._size))
        return both[: told.size]

    def _evaluates(self) -> bool:
        """Whether this step has passed a multiple of what lies between evaluations."""
        if self._every is None or self.finished:
            return False
        now, before = self._steps * self._size, (self._steps - 1) * self._size
        return now // self._every > before // self._every

    def _take_copies(self) -> None:
        copies = self._own.averaged_copies()
        if self._rank == 0:
            self._average = self._steps * self._size, copies

    def _finish(self) -> None:
        try:
            with self._held:
                interrupted = self._averager.vote(self._asked or self._stopping)
                self.hear_complaints()
                self._keep_last(interrupted)
                self._distance = self._average_at_last()
                self._effort.freeze()
        except BaseException as error:
            self._failure = error
            raise
        self._reason = "interrupted" if interrupted else "finished"

    def _average_at_last(self) -> float:
        """Average all; returns the mean over ranks of ‖x_i − x̄‖² before that."""
        apart = np.array([self._own.average_at_last()], np.float64)
        self._mean_over_ranks([apart])
        return float(apart[0])

    def _stamp(self) -> tuple[float, float, int]:
        """Seconds, units of time (a step is one), own gradients."""
        return self._clock.now() - self._began, float(self._steps), self._steps
