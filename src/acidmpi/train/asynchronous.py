"""Trainers whose ranks average in pairs: a torch model or a NumPy vector.

Every gradient is one event of its own; no rank waits for all the others.
"""

from collections.abc import Callable
from dataclasses import fields
from types import TracebackType
from typing import Any, Self, final

import numpy as np

from acidmpi.config.train import TrainConfig
from acidmpi.telemetry.stalls import Picture
from acidmpi.telemetry.summary import StopReason
from acidmpi.train.bases import NetworkBase, Setting, VectorBase
from acidmpi.train.course import Average, Figures, Scores
from acidmpi.train.gradients import told, usable
from acidmpi.train.keeping import restore_task
from acidmpi.train.lost import Lost
from acidmpi.train.plan import Plan
from acidmpi.worker.gossip import Gossip


@final
class WorkerCourse:
    """A `Worker` or a `Gossip` as the loop sees it.

    Args:
        worker: either of the two.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._worker.close(error)

    @property
    def finished(self) -> bool:
        """Whether the goal is reached, or some rank has ended the run."""
        return bool(self._worker.finished)

    @property
    def progress(self) -> float:
        """Share of the total that all ranks have done, as far as this one knows."""
        return float(self._worker.progress)

    @property
    def stop_reason(self) -> StopReason:
        """finished, interrupted or failed."""
        reason: StopReason = self._worker.stop_reason
        return reason

    @property
    def leads(self) -> bool:
        """Whether this rank shows and keeps the results: the lowest that lives."""
        return bool(self._worker.engine.leads)

    @property
    def told(self) -> bool:
        """Whether the others know: an orderly end is one of all ranks."""
        return self.clean and bool(self._worker.engine.told)

    @property
    def clean(self) -> bool:
        """Whether no operation was left pending."""
        return bool(self._worker.clean)

    def stop(self) -> None:
        """Ask all ranks to stop; the news spreads over the graph."""
        self._worker.stop()

    def take_average(self) -> Average | None:
        """The newest average of all ranks, on rank 0."""
        average: Average | None = self._worker.take_average()
        return average

    def record(self, scores: Scores) -> None:
        """Put an evaluation into the metrics."""
        self._worker.engine.parts.recorder.evaluation(*scores)

    def watch_stalls(self, tell: Callable[[Picture], None]) -> None:
        """Let `tell` show who waits for whom when something takes too long."""
        self._worker.engine.parts.loop.watchdog.tell = tell

    def statistics(self) -> Figures:
        """What the worker tells."""
        statistics = self._worker.statistics()
        names = [field.name for field in fields(Figures)]
        return Figures(**{name: getattr(statistics, name) for name in names})


@final
class NetworkTrainer(NetworkBase):
    """Trains the model of a torch task by SGD.

    Args:
        given: its task is a `TorchTask`.
    """

    def __init__(self, given: Setting) -> None:
        from acidmpi.worker.torch.worker import Worker

        super().__init__(given, fused=True)
        task, kept = given.task, given.kept
        keeping = None
        if kept is not None:
            keeping = kept.keeping(lambda: {"task": task.state()})
        if keeping and keeping.saved:
            restore_task(task, keeping.saved.part["caller"]["position"]["task"])
        self._worker = Worker(
            self._network.model,
            self._network.optimizer,
            comm=given.comm,
            nonfinite=given.config.nonfinite,
            metrics=given.metrics,
            keeping=keeping,
            **worker_options(given.config, given.plan, given.lost),
        )
        self.course = WorkerCourse(self._worker)

    def step(self, rate: float) -> float:
        """One batch: loss, gradient, update."""
        loss = self._network.backward(rate)
        if self._config.clip is not None:
            self._worker.clip_grad_norm_(self._config.clip)
        samples = self._network.batch_size
        self._worker.step(told(loss), samples=samples, zero_grad=True)
        return loss

    def scores_of(self, average: Any) -> Scores:
        """On the test set, with a second model that holds the average."""
        spare = self._network.spare()
        self._worker.load_average(average, spare)
        return self._network.scores_with(spare)


@final
class VectorTrainer(VectorBase):
    """Minimises a function of a NumPy vector by momentum SGD.

    Args:
        given: its task is a `Quadratic`.
    """

    def __init__(self, given: Setting) -> None:
        super().__init__(given)
        keeping = None
        if given.kept is not None:
            keeping = given.kept.keeping(self._position)
        if keeping and keeping.saved:
            position = keeping.saved.part["caller"]["position"]
            self._sgd.momentum = position["momentum"]
            restore_task(self._task, position["task"])
        self._worker = Gossip(
            self._x,
            comm=given.comm,
            metrics=given.metrics,
            keeping=keeping,
            **worker_options(given.config, given.plan, given.lost),
        )
        engine = self._worker.engine
        self._gradient_at = engine.drill.spoil_result(
            given.task.gradient, engine.next_gradient
        )
        self.course = WorkerCourse(self._worker)

    def _position(self) -> dict[str, Any]:
        return {"task": self._task.state(), "momentum": self._sgd.momentum}

    def step(self, rate: float) -> float:
        """One noisy gradient at the live x, then the update of SGD."""
        loss, gradient = self._gradient()
        if usable(gradient, loss, self._config.nonfinite):
            self._worker.apply(self._change(gradient, rate), loss, lr=rate)
        else:  # left out, but counted, so that the run still ends
            self._worker.apply(np.zeros_like(self._x), lr=rate)
        return loss


def worker_options(
    config: TrainConfig, plan: Plan, lost: Lost | None = None
) -> dict[str, Any]:
    """What `Worker` and `Gossip` are told alike."""
    return {
        "topology": config.topology if lost is None else lost.graph(config),
        "comm_rate": config.comm_rate,
        "method": config.method,
        "total_gradients": plan.total_gradients,
        "pairing": config.pairing,
        "transport": config.transport,
        "chunk_bytes": config.chunk_bytes,
        "message_bytes": config.message_bytes,
        "progress": config.progress,
        "max_lag": config.max_lag,
        "safety": config.safety,
        "seed": config.seed,
        "deadline_seconds": config.deadline_seconds,
        "average_every": plan.average_every,
        "fault": config.fault if lost is None else lost.faults(config),
        "fault_tolerant": config.fault_tolerant,
    }
