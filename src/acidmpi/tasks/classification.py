"""Image classification with torch: the images of a set, a model, and cross-entropy."""

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from acidmpi.tasks.images import ImageSet, Labels, Pixels
from acidmpi.tasks.interface import (
    MODEL_NAMES,
    State,
    TaskDefaults,
    TaskOptions,
    known_name,
)
from acidmpi.tasks.models import make_model
from acidmpi.tasks.sampling import (
    Indices,
    Purpose,
    ShuffledBatches,
    dirichlet_partition,
    generator_for,
)

Batch = tuple[Tensor, Tensor]

EVALUATION_BATCH = 128


@final
class ClassificationTask:
    """One rank's side of an image task; see `TorchTask`.

    Args:
        name: of the task.
        defaults: what stands in for options that are None.
        images: the whole set; a subset and this rank's share are taken here.
        options: of this rank.
    """

    def __init__(
        self, name: str, defaults: TaskDefaults, images: ImageSet, options: TaskOptions
    ) -> None:
        self.name = name
        self.defaults = defaults
        self.model = known_name(
            "model", options.model or defaults.model or "", MODEL_NAMES
        )
        self.batch_size = options.batch_size or defaults.batch_size
        self._seed = options.seed
        self._images = images.subset(options.subset) if options.subset else images
        self._share = _share(self._images, options)
        self._stream = ShuffledBatches(
            self._share,
            self.batch_size,
            generator_for(options.seed, Purpose.ORDER, options.rank),
        )
        self._augment = self._images.augment if options.augment else None
        self._random_parts = self._images.random_parts and options.augment
        self._augment_generator = generator_for(
            options.seed, Purpose.AUGMENT, options.rank
        )
        self._mean = _per_channel(images.mean)
        self._scale = 1 / _per_channel(images.std)

    @property
    def train_size(self) -> int:
        """Samples that this rank holds."""
        return len(self._share)

    @property
    def samples_per_epoch(self) -> int:
        """Samples in one epoch over all ranks: the whole training set."""
        return len(self._images.train)

    def make_model(self) -> nn.Module:
        """Build the initial model: the same on every rank, fixed by the seed alone."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also seed devices that are not forked.
            torch.default_generator.manual_seed(self._seed)
            return make_model(
                self.model, shape=self._images.shape, classes=self._images.classes
            )

    def batches(self) -> Iterator[Batch]:
        """Yield (inputs, targets) without end, from the present position on."""
        while True:
            indices = self._stream.take()
            parts = self._augment_generator if self._random_parts else None
            pixels = self._images.train.take(indices, parts)
            if self._augment:
                pixels = self._augment(pixels, self._augment_generator)
            yield self._inputs(pixels), _targets(self._images.train_labels[indices])

    def _inputs(self, pixels: Pixels) -> Tensor:
        return torch.from_numpy(pixels).float().sub_(self._mean).mul_(self._scale)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of `model` on `batch`, wherever the model lives."""
        inputs, targets = batch
        parameter = next(model.parameters())
        outputs = model(inputs.to(parameter.device, parameter.dtype))
        return cross_entropy(outputs, targets.to(parameter.device))

    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Loss and accuracy on the test set; the model's mode is put back."""
        training = model.training
        model.eval()
        try:
            loss, correct = self._evaluate(model)
        finally:
            model.train(training)
        return loss / len(self._images.test), correct / len(self._images.test)

    @torch.no_grad()
    def _evaluate(self, model: nn.Module) -> tuple[float, int]:
        """Sum of losses and number of correct answers."""
        loss, correct = 0.0, 0
        parameter = next(model.parameters())
        for start in range(0, len(self._images.test), EVALUATION_BATCH):
            stop = min(start + EVALUATION_BATCH, len(self._images.test))
            inputs = self._inputs(self._images.test.take(np.arange(start, stop)))
            targets = _targets(self._images.test_labels[start:stop])
            targets = targets.to(parameter.device)
            outputs = model(inputs.to(parameter.device, parameter.dtype)).float()
            loss += cross_entropy(outputs, targets, reduction="sum").item()
            correct += int((outputs.argmax(1) == targets).sum())
        return loss, correct

    def state(self) -> State:
        """Position in the data after the last batch that was drawn."""
        return {
            "order": self._stream.state(),
            "augment": dict(self._augment_generator.bit_generator.state),
        }

    def restore(self, state: State) -> None:
        """Go on from a position that `state` gave."""
        self._stream.restore(state["order"])
        self._augment_generator.bit_generator.state = state["augment"]


def _share(images: ImageSet, options: TaskOptions) -> Indices:
    if options.dirichlet is None:
        return np.arange(len(images.train))
    return dirichlet_partition(
        images.train_labels, options.size, options.dirichlet, options.seed
    )[options.rank]


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _targets(labels: Labels) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))
