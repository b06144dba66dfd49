"""The course of methods in which all ranks step together: all-reduce and local SGD.

A step of `size` ranks is `size` gradient events. All ranks make the same number of steps,
so the total, evaluations and the learning rate are known without a message. What only one
rank knows, that a signal has asked for the end, is summed over ranks in a *pulse*: a small
sum after every k-th step, where k is chosen so that pulses come `PULSE_SECONDS` apart.

Guarantees:
- every rank leaves at the same step and gives the same reason;
- an evaluation on the way works on copies, and changes nothing in the run.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.clocks import Clock, WallClock
from acidmpi.compression.protocol import Compressor, Spec, Sum
from acidmpi.compression.registry import make
from acidmpi.config.train import TrainConfig
from acidmpi.errors import AcidError, DeadlineExceeded, PeerFailed
from acidmpi.mpi.reductions import MPIError
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.messages import sent_bytes
from acidmpi.telemetry.metrics import Metrics
from acidmpi.telemetry.summary import StopReason
from acidmpi.train.course import Average, Figures, Scores
from acidmpi.train.plan import Plan

Array = NDArray[Any]

PULSE_SECONDS = 0.1
"""How long a signal may go unheard; a pulse costs one small sum of all ranks."""

LONGEST_PULSE_STEPS = 4096

TRANSPORT = "host"

LOST = (DeadlineExceeded, PeerFailed, MPIError)
"""After these some rank may still wait for another."""


class Counting(Protocol):
    """Whoever sends: an averager, or an optimizer that has one."""

    def statistics(self) -> Any:
        """Has `bytes_sent` and `seconds_waiting`."""
        ...


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
        clock: Clock | None = None,
    ) -> None:
        self._averager = averager
        self._held = ExitStack()
        self._counting: list[Counting] = []
        self.hold(averager)
        self._total = plan.total_gradients
        self._every = plan.average_every
        self._rank, self._size = rank, size
        self._goal = math.ceil(plan.total_gradients / size)
        self._metrics = metrics
        self._parameters, self._buffers = list(parameters), list(buffers)
        self._clock = clock or WallClock()
        self._began = self._clock.now()
        self._pulse = Pulse(self._clock, leads=rank == 0)
        self._steps = 0
        self._asked = self._stopping = False
        self._averaged_bytes, self._averaging_seconds = 0, 0.0
        self._last_words: tuple[int, float] | None = None
        self._failure: BaseException | None = None
        self._reason: StopReason = "failed"
        self._average: Average | None = None
        self._distance: float | None = None

    def hold(self, counting: Any) -> None:
        """Close this, too, at the end, before what was held earlier; count what it sends.

        Args:
            counting: a context manager that has `statistics()`.
        """
        self._held.enter_context(counting)
        self._counting.append(counting)

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
        self._last_words = self._spoken()
        try:
            self._held.__exit__(kind, error, traceback)
        except LOST as second:  # the error under way is the one to tell
            self._failure = second
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
    def clean(self) -> bool:
        """Whether all ranks know of the end."""
        return self._averager.clean and not isinstance(self._failure, LOST)

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
        if self._metrics is not None:
            self._metrics.gradient(*self._stamp(), loss, rate)
        if self._pulse.due(self._steps):
            self._hear()
        if self._evaluates():
            self._take_copies()

    def take_average(self) -> Average | None:
        """What is to be evaluated, on rank 0."""
        average, self._average = self._average, None
        return average

    def record(self, scores: Scores) -> None:
        """Put an evaluation into the metrics."""
        if self._metrics is not None:
            self._metrics.evaluation(*self._stamp(), *scores)

    def statistics(self) -> Figures:
        """What has happened so far."""
        bytes_sent, waiting_seconds = self._last_words or self._spoken()
        return Figures(
            gradients=self._steps,
            total_gradients=self._steps * self._size,
            bytes_sent=bytes_sent + self._averaged_bytes,
            idle_seconds=waiting_seconds + self._averaging_seconds,
            transport=TRANSPORT,
            consensus_distance=self._distance,
        )

    def _spoken(self) -> tuple[int, float]:
        """Bytes sent, and seconds waited, of everyone held."""
        told = [counting.statistics() for counting in self._counting]
        sent = sum(each.bytes_sent for each in told)
        return sent, sum(each.seconds_waiting for each in told)

    def average_every(self, steps: int) -> None:
        """Replace what differs between ranks by its mean after so many steps; collective.

        After the last step it is left to the end, which averages anyway.
        """
        if self._steps % steps == 0 and not self.finished:
            self._replace_by_mean([*self._parameters, *self._buffers])

    def _replace_by_mean(self, arrays: list[Array]) -> None:
        """Average, with what that costs counted."""
        if not arrays:
            return
        began = self._clock.now()
        self._averager.average(arrays)
        self._averaging_seconds += self._clock.now() - began
        self._averaged_bytes += sum(sent_bytes(Sum(a), self._size) for a in arrays)

    def _hear(self) -> None:
        self._stopping = self._pulse.beat(self._asked, self._steps, self._averager)
        if self._metrics is not None:
            total = self._steps * self._size
            self._metrics.heartbeat(*self._stamp(), total, None, None)

    def _evaluates(self) -> bool:
        """Whether this step has passed a multiple of what lies between evaluations."""
        if self._every is None or self.finished:
            return False
        now, before = self._steps * self._size, (self._steps - 1) * self._size
        return now // self._every > before // self._every

    def _take_copies(self) -> None:
        copies = [array.copy() for array in (*self._parameters, *self._buffers)]
        self._replace_by_mean(copies)
        if self._rank == 0:
            self._average = self._steps * self._size, copies

    def _finish(self) -> None:
        try:
            with self._held:
                interrupted = self._averager.vote(self._asked or self._stopping)
                self._distance = self._average_at_last()
                self._last_words = self._spoken()
        except BaseException as error:
            self._failure = error
            raise
        self._reason = "interrupted" if interrupted else "finished"

    def _average_at_last(self) -> float:
        """Average all; returns the mean over ranks of ‖x_i − x̄‖² before that."""
        before = [array.copy() for array in self._parameters]
        self._replace_by_mean([*self._parameters, *self._buffers])
        both = zip(self._parameters, before, strict=True)
        apart = np.array([sum(_squared_distance(a, b) for a, b in both)], np.float64)
        self._averager.average([apart])
        return float(apart[0])

    def _stamp(self) -> tuple[float, float, int]:
        """Seconds, units of time (a step is one), own gradients."""
        return self._clock.now() - self._began, float(self._steps), self._steps


@final
class Pulse:
    """Decides after which steps the ranks ask each other whether to stop.

    One rank's clock leads: its choice travels with the answers as a whole number, whose
    sum is exact, so that all ranks take the same one.

    Args:
        clock: of this rank.
        leads: whether it is this rank's clock that counts.
    """

    def __init__(self, clock: Clock, *, leads: bool) -> None:
        self._clock = clock
        self._leads = leads
        self._last_step = 0
        self._last_seconds = clock.now()
        self._apart = 1

    def due(self, step: int) -> bool:
        """Whether the ranks meet after this step."""
        return step - self._last_step >= self._apart

    def beat(self, stop: bool, step: int, averager: Averager) -> bool:
        """Meet; returns whether any rank wants to stop. Collective."""
        wish = self._wish(step) if self._leads else 0
        told = np.array([stop, wish, self._leads], np.float64)
        averager.average([told])
        stops, apart, one = told  # each divided by the number of ranks
        self._apart = round(apart / one)
        self._last_step, self._last_seconds = step, self._clock.now()
        return bool(stops > 0)

    def _wish(self, step: int) -> int:
        """Steps to the next pulse, by this rank's clock; at most twice as many as now."""
        seconds = max(self._clock.now() - self._last_seconds, 1e-9)
        steps = int((step - self._last_step) * PULSE_SECONDS / seconds)
        return max(1, min(steps, 2 * self._apart, LONGEST_PULSE_STEPS))


def _squared_distance(a: Array, b: Array) -> float:
    return float(np.sum(np.square(a.astype(np.float64) - b)))


def open_averager(
    comm: Any, config: TrainConfig, specs: Sequence[Spec], compressor: Compressor
) -> Averager:
    """An averager with the run's options; collective over `comm`."""
    return Averager(
        specs,
        compressor,
        comm,
        bucket_bytes=config.bucket_bytes,
        seed=config.seed,
        progress=config.progress,
        deadline_seconds=config.deadline_seconds,
    )


def open_dense_averager(comm: Any, config: TrainConfig) -> Averager:
    """An averager for votes and parameters, which is handed no gradients; collective."""
    nothing = Spec((1,), np.dtype(np.float64))
    return open_averager(comm, config, [nothing], make("none"))
