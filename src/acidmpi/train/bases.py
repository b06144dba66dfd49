"""What trainers have in common: one for a torch model, one for a NumPy vector.

A trainer is made from a `Setting`, collectively over its ranks. Neither base imports torch:
a network task brings it along, a vector task never needs it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from acidmpi.config.train import TrainConfig
from acidmpi.train.course import Average, Scores
from acidmpi.train.drills import order_faults
from acidmpi.train.gradients import MomentumSGD, Network, clipped
from acidmpi.train.keeping import Kept, restore_task
from acidmpi.train.lost import Lost
from acidmpi.train.plan import Plan

Array = NDArray[Any]


@dataclass(frozen=True)
class Setting:
    """What a trainer is made from."""

    task: Any
    """A `TorchTask`, or a `Quadratic`."""

    comm: Any
    """The ranks."""

    config: TrainConfig
    """Resolved options."""

    plan: Plan
    """The work."""

    metrics: Any
    """Where events are recorded."""

    kept: Kept | None = None
    """Checkpoints, or None for none."""

    device: int | None = None
    """Index of this rank's GPU; None is the CPU."""

    lost: Lost | None = None
    """Those who died before the others began; None where nobody did."""


class NetworkBase:
    """Trains the model of a torch task.

    Args:
        given: its task is a `TorchTask`.
        fused: the optimizer is for a `Worker`, which fuses it.
    """

    def __init__(self, given: Setting, *, fused: bool = False) -> None:
        self._config = given.config
        self._network = Network(
            given.task, given.plan, fused=fused, device=given.device
        )
        order_faults(self._network, "backward", given.config, given.comm)

    def mourn(self, dead: Collection[int]) -> None:
        """Nothing changes: the test set is what it was."""

    def scores(self) -> Scores:
        """On the test set, with the model as it is."""
        return self._network.scores()

    def _clip(self) -> None:
        if self._config.clip is not None:
            self._network.clip(self._config.clip)


class VectorBase:
    """Minimises a function of a NumPy vector x by momentum SGD.

    Args:
        given: its task is a `Quadratic`.
    """

    def __init__(self, given: Setting) -> None:
        self._task = given.task
        self._config = given.config
        self._x: Array = given.task.initial()
        self._sgd = MomentumSGD(self._x, given.plan.recipe)
        self._gradient_at = given.task.gradient
        order_faults(self, "_gradient", given.config, given.comm)

    def mourn(self, dead: Collection[int]) -> None:
        """The functions of dead ranks count no more in what is evaluated."""
        self._task.leave_out(dead)

    def scores(self) -> Scores:
        """Excess loss at x."""
        scores: Scores = self._task.evaluate(self._x)
        return scores

    def scores_of(self, average: Average) -> Scores:
        """Excess loss at an average."""
        _, (x,) = average
        scores: Scores = self._task.evaluate(x)
        return scores

    def _state(self) -> dict[str, Any]:
        """What a checkpoint keeps of a synchronous method; arrays are live."""
        position = {"task": self._task.state()}
        return {"x": self._x, "momentum": self._sgd.momentum, "position": position}

    def _restore(self, state: dict[str, Any]) -> None:
        """Go on from what `_state` gave."""
        self._x[...] = state["x"]
        self._sgd.momentum = state["momentum"]
        restore_task(self._task, state["position"]["task"])

    def _gradient(self) -> tuple[float, Array]:
        """The loss and a noisy gradient at x as it is."""
        loss: float = self._task.loss(self._x)
        return loss, self._gradient_at(self._x, self._task.generator)

    def _change(self, gradient: Array, rate: float) -> Array:
        """What is to be added to x for a gradient, which is clipped first."""
        return self._sgd.change(clipped(gradient, self._config.clip), rate)
