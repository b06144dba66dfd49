"""The two kinds of gradient: of a torch model through `Worker`, of a vector by NumPy.

Neither kind imports torch here: a network task brings it along, a vector task never
needs it.
"""

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.config.train import TrainConfig
from acidmpi.errors import NonFiniteError
from acidmpi.tasks.groups import parameter_groups
from acidmpi.train.plan import Plan
from acidmpi.worker.gossip import Gossip

Scores = tuple[float, float | None]
"""Loss and, where there is one, accuracy on the test set."""


class Trainer(Protocol):
    """One rank's model, and the worker that it is trained with."""

    @property
    def worker(self) -> Any:
        """A `Worker` or a `Gossip`; a context manager."""
        ...

    def step(self, rate: float) -> float:
        """One gradient event at the learning rate `rate`; returns the loss."""
        ...

    def scores(self) -> Scores:
        """Of the parameters as they are."""
        ...

    def scores_of(self, average: Any) -> Scores:
        """Of an average that the worker has taken; the parameters are left alone."""
        ...


@final
class NetworkTrainer:
    """Trains the model of a torch task by SGD; collective over `comm`.

    Args:
        task: a `TorchTask`.
        comm: the ranks.
        config: resolved options.
        plan: the work.
        metrics: where events are recorded.
    """

    def __init__(
        self, task: Any, comm: Any, config: TrainConfig, plan: Plan, metrics: Any
    ) -> None:
        from acidmpi.worker.torch.worker import Worker

        self._task = task
        self._clip = config.clip
        self._batches: Iterator[Any] = task.batches()
        self._model = task.make_model()
        self._optimizer = _sgd(self._model, plan)
        self._spare: Any = None
        self.worker = Worker(
            self._model,
            self._optimizer,
            comm=comm,
            nonfinite=config.nonfinite,
            metrics=metrics,
            **worker_options(config, plan),
        )

    def step(self, rate: float) -> float:
        """One batch: loss, gradient, update."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._task.loss(self._model, next(self._batches))
        loss.backward()
        if self._clip is not None:
            self.worker.clip_grad_norm_(self._clip)
        value = float(loss.detach())
        told = value if math.isfinite(value) else None
        self.worker.step(told, samples=self._task.batch_size, zero_grad=True)
        return value

    def scores(self) -> Scores:
        """On the test set, with the parameters as they are."""
        scores: Scores = self._task.evaluate(self._model)
        return scores

    def scores_of(self, average: Any) -> Scores:
        """On the test set, with a second model that holds the average."""
        if self._spare is None:
            self._spare = self._task.make_model()
        self._spare.load_state_dict(self._model.state_dict())  # for the buffers
        self.worker.load_average(average, self._spare)
        scores: Scores = self._task.evaluate(self._spare)
        return scores


@final
class VectorTrainer:
    """Minimises a function of a NumPy vector by momentum SGD; collective over `comm`.

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
        self._recipe = plan.recipe
        self._x: NDArray[Any] = task.initial()
        self._momentum = np.zeros_like(self._x)
        self.worker = Gossip(
            self._x,
            comm=comm,
            metrics=metrics,
            **worker_options(config, plan),
        )

    def step(self, rate: float) -> float:
        """One noisy gradient at the live x, then the update of SGD."""
        loss: float = self._task.loss(self._x)
        gradient = self._task.gradient(self._x, self._task.generator)
        if not (np.isfinite(gradient).all() and math.isfinite(loss)):
            self._skip(rate)
            return loss
        self._momentum *= self._recipe.momentum
        self._momentum += self._clipped(gradient)
        self._momentum += self._recipe.weight_decay * self._x
        self.worker.apply(-rate * self._momentum, loss, lr=rate)
        return loss

    def _clipped(self, gradient: NDArray[Any]) -> NDArray[Any]:
        limit = self._config.clip
        if limit is None:
            return gradient
        return gradient * min(1.0, limit / max(_norm(gradient), 1e-30))

    def _skip(self, rate: float) -> None:
        """Leave a gradient out, but count it, so that the run still ends."""
        if self._config.nonfinite == "raise":
            raise NonFiniteError(
                "a gradient must be finite, got NaN or infinity; lower --lr, set "
                "--clip or use --nonfinite skip"
            )
        self.worker.apply(np.zeros_like(self._x), lr=rate)

    def scores(self) -> Scores:
        """Excess loss at x."""
        scores: Scores = self._task.evaluate(self._x)
        return scores

    def scores_of(self, average: Any) -> Scores:
        """Excess loss at an average."""
        _, (x,) = average
        scores: Scores = self._task.evaluate(x)
        return scores


def make_trainer(
    task: Any, comm: Any, config: TrainConfig, plan: Plan, metrics: Any
) -> Trainer:
    """The trainer that `task` needs; collective over `comm`."""
    kind = NetworkTrainer if task.defaults.uses_torch else VectorTrainer
    return kind(task, comm, config, plan, metrics)


def worker_options(config: TrainConfig, plan: Plan) -> dict[str, Any]:
    """What `Worker` and `Gossip` are told alike."""
    return {
        "topology": config.topology,
        "comm_rate": config.comm_rate,
        "method": config.method,
        "total_gradients": plan.total_gradients,
        "pairing": config.pairing,
        "progress": config.progress,
        "max_lag": config.max_lag,
        "safety": config.safety,
        "seed": config.seed,
        "deadline_seconds": config.deadline_seconds,
        "average_every": plan.average_every,
    }


def _sgd(model: Any, plan: Plan) -> Any:
    import_module("acidmpi.tasks.lean").leave_out_compiler()
    recipe = plan.recipe
    return import_module("torch.optim").SGD(
        parameter_groups(model, recipe.weight_decay),
        lr=recipe.lr,
        momentum=recipe.momentum,
    )


def _norm(x: NDArray[Any]) -> float:
    return float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))
