"""Where gradients come from, whatever becomes of them: a torch task or a NumPy vector.

Neither imports torch here: a network task brings it along, a vector task never needs it.
"""

import math
from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import NonFiniteError
from acidmpi.train.course import Scores
from acidmpi.train.plan import Plan, Recipe

Array = NDArray[Any]


@final
class Network:
    """The model of a torch task, its optimizer and its batches.

    Args:
        task: a `TorchTask`.
        plan: has the recipe.
        fused: the optimizer is for a `Worker`, which fuses it.
        device: index of the GPU that the model is for; None is the CPU.
    """

    def __init__(
        self, task: Any, plan: Plan, *, fused: bool, device: int | None = None
    ) -> None:
        from acidmpi.tasks.optimizer import make_sgd

        recipe = plan.recipe
        self.batch_size = recipe.batch_size
        self._device = device
        self.model: Any = _moved(task.make_model(), device)
        self.optimizer: Any = make_sgd(
            self.model,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
        self._late: Any = None
        if device is not None:
            from acidmpi.arrays.torch.devices import LateLoss

            self._late = LateLoss(next(self.model.parameters()).device)
        self._task = task
        self._batches: Iterator[Any] = task.batches()
        self._spare: Any = None

    def backward(self, rate: float) -> float:
        """Add the gradient of the next batch to the parameters'; returns the loss.

        On a GPU it is the loss of the batch before, NaN the first time: this one's is not
        computed yet.

        Args:
            rate: the learning rate that the optimizer is to use.

        Raises:
            DeviceMemoryError: the GPU's memory is full.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        from acidmpi.arrays.torch.devices import fitting

        with fitting():
            loss = self._task.loss(self.model, next(self._batches))
            loss.backward()
        if self._late is None:
            return float(loss.detach())
        before: float | None = self._late.swap(loss)
        return math.nan if before is None else before

    def clip(self, limit: float) -> None:
        """Scale the gradients down where their common norm is above `limit`."""
        from acidmpi.tasks.optimizer import clip_gradients

        clip_gradients(self.model, limit)

    def state(self, optimizer: Any) -> dict[str, Any]:
        """What a checkpoint keeps; arrays are live.

        Args:
            optimizer: this one, or what wraps it.
        """
        from acidmpi.arrays.torch.trees import arrays_of

        return {
            "model": arrays_of(dict(self.model.state_dict())),
            "optimizer": arrays_of(optimizer.state_dict()),
            "position": {"task": self._task.state()},
        }

    def restore(self, state: dict[str, Any], optimizer: Any) -> None:
        """Go on from what `state` gave; collective where `optimizer` is."""
        from acidmpi.arrays.torch.trees import tensors_of

        self.model.load_state_dict(tensors_of(state["model"]))
        saved = dict(state["optimizer"])
        averaging = saved.pop("acidmpi", None)
        saved = tensors_of(saved)
        if averaging is not None:
            saved["acidmpi"] = averaging
        optimizer.load_state_dict(saved)
        if state["position"]["task"] is not None:
            self._task.restore(state["position"]["task"])

    def float_buffers(self) -> list[Array]:
        """The model's floating-point buffers, live."""
        return float_buffers(self.model)

    def scores(self) -> Scores:
        """On the test set, with the model as it is."""
        return self.scores_with(self.model)

    def scores_with(self, model: Any) -> Scores:
        """On the test set, with another model of this kind."""
        scores: Scores = self._task.evaluate(model)
        return scores

    def spare(self) -> Any:
        """A second model with this one's parameters and buffers as they are now."""
        if self._spare is None:
            self._spare = _moved(self._task.make_model(), self._device)
        self._spare.load_state_dict(self.model.state_dict())
        return self._spare


def _moved(model: Any, device: int | None) -> Any:
    """The model on its device, which is torch's current one from here on."""
    if device is None:
        return model
    from acidmpi.arrays.torch.devices import move_to

    return move_to(model, device)


def float_buffers(model: Any) -> list[Array]:
    """Floating-point buffers of a torch model, live, in the model's order."""
    from acidmpi.arrays.torch.views import as_array

    buffers = [buffer.detach() for buffer in model.buffers()]
    return [as_array(buffer) for buffer in buffers if buffer.is_floating_point()]


@final
class MomentumSGD:
    """Momentum SGD on a vector, as torch's: `m ← μ m + g + λ x`, `x ← x − rate · m`.

    Args:
        x: the vector; read, not changed.
        recipe: has momentum μ and weight decay λ.
    """

    def __init__(self, x: Array, recipe: Recipe) -> None:
        self._x = x
        self._recipe = recipe
        self.momentum = np.zeros_like(x)
        """m; replaced with each gradient, never changed: checkpoints may hold it."""

    def change(self, gradient: Array, rate: float) -> Array:
        """What is to be added to x: a new array."""
        momentum = self.momentum * self._recipe.momentum
        momentum += gradient
        momentum += self._recipe.weight_decay * self._x
        self.momentum = momentum
        change: Array = -rate * momentum
        return change


def clipped(gradient: Array, limit: float | None) -> Array:
    """`gradient`, scaled down where its Euclidean norm is above `limit`."""
    if limit is None:
        return gradient
    norm = float(np.sqrt(np.sum(np.square(gradient, dtype=np.float64))))
    shorter: Array = gradient * min(1.0, limit / max(norm, 1e-30))
    return shorter


def usable(gradient: Array, loss: float, nonfinite: str) -> bool:
    """Whether the gradient is finite; where it is not, it may be left out.

    Raises:
        NonFiniteError: it is not, and `nonfinite` is `raise`.
    """
    if is_finite(gradient, loss):
        return True
    if nonfinite == "raise":
        raise nonfinite_error("this rank")
    return False


def is_finite(gradient: Array, loss: float) -> bool:
    """Whether neither holds NaN or infinity."""
    return bool(np.isfinite(gradient).all()) and math.isfinite(loss)


def nonfinite_error(whose: str) -> NonFiniteError:
    """The error that says which gradient is NaN or infinite, and what to do."""
    return NonFiniteError(
        f"gradients must be finite, but one of {whose} is not finite; lower --lr, set "
        "--clip or use --nonfinite skip"
    )


def told(loss: float) -> float | None:
    """`loss` for the record; None if it is not finite."""
    return loss if math.isfinite(loss) else None
