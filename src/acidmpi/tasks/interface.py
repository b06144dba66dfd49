"""What a task is: its defaults, the options it is built from, and what it offers.

Nothing here imports torch, so that the command line can show and check options first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from acidmpi.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

State = dict[str, Any]
"""A position in the data, made of plain values that JSON can hold."""

RESNET_DEPTHS = (18, 34, 50, 101, 152)

MODEL_NAMES = (
    "mlp",
    "cnn",
    "lenet",
    *(f"resnet{depth}" for depth in RESNET_DEPTHS),
    *(f"resnet{depth}-imagenet" for depth in RESNET_DEPTHS),
)
"""The models of the image tasks; `-imagenet` has the stem for large images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDefaults:
    """Options that a task sets when the user does not."""

    epochs: float
    """Passes over the training set, counted over all ranks together."""

    batch_size: int
    lr: float
    """Learning rate before the warm-up scales it with the number of ranks."""

    momentum: float
    weight_decay: float
    model: str | None
    """None where the task brings its own function instead of a model."""

    decays: tuple[float, ...] = (0.5, 0.75)
    """Shares of the work after each of which the learning rate is divided by ten."""

    needs_data_dir: bool = False
    uses_torch: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions:
    """What one rank asks of a task; None stands for the task's default."""

    data_dir: str | Path | None = None
    model: str | None = None
    batch_size: int | None = None
    seed: int = 0
    """Fixes the initial model and, with the rank, the order of the data."""

    rank: int = 0
    size: int = 1
    dirichlet: float | None = None
    """Concentration of a label-skewed share per rank; None: every rank holds all."""

    heterogeneity: float | None = None
    """How far apart the minima of the ranks' own functions lie, for the quadratic."""

    augment: bool = True
    subset: int | None = None
    """Train on this many samples and test on at most as many; None: on all."""

    def __post_init__(self) -> None:
        _positive("batch_size", self.batch_size)
        _positive("subset", self.subset)
        _positive("dirichlet", self.dirichlet)
        if self.heterogeneity is not None and not 0 <= self.heterogeneity < float(
            "inf"
        ):
            raise ConfigError(
                f"heterogeneity must be at least 0 and finite, got {self.heterogeneity}"
            )
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")
        if not 0 <= self.rank < self.size:
            raise ConfigError(
                f"rank must lie in 0..size-1, got rank {self.rank} of size {self.size}"
            )


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be positive and finite, got {value}")


def known_name(kind: str, name: str, known: tuple[str, ...]) -> str:
    """Return `name` if it is known, else raise an error that lists what is."""
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
    return name


class TorchTask(Protocol):
    """A task whose gradients come from a torch model."""

    name: str
    defaults: TaskDefaults
    model: str
    batch_size: int

    @property
    def train_size(self) -> int:
        """Samples that this rank holds."""
        ...

    @property
    def samples_per_epoch(self) -> int:
        """Samples in one epoch over all ranks."""
        ...

    def make_model(self) -> "nn.Module":
        """Build the initial model: the same on every rank, fixed by the seed alone."""
        ...

    def batches(self) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Yield (inputs, targets) without end, from the present position on."""
        ...

    def loss(
        self, model: "nn.Module", batch: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "torch.Tensor":
        """Mean loss of `model` on `batch`, a scalar to differentiate."""
        ...

    def evaluate(self, model: "nn.Module") -> tuple[float, float | None]:
        """Loss and accuracy on the test set."""
        ...

    def state(self) -> State:
        """Position in the data after the last batch that was drawn."""
        ...

    def restore(self, state: State) -> None:
        """Go on from a position that `state` gave."""
        ...
