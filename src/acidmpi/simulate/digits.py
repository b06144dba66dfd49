"""Logistic regression on the handwritten digits that come with the package."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from acidmpi.simulate.workload import Floats, Scores
from acidmpi.tasks import digits
from acidmpi.tasks.images import Images
from acidmpi.tasks.interface import TaskOptions
from acidmpi.tasks.sampling import (
    Indices,
    Purpose,
    ShuffledBatches,
    dirichlet_partition,
    generator_for,
)


@final
class LogisticDigits:
    """Weights of 10 classes for 64 pixels and a constant: 650 numbers, from zero.

    Args:
        ranks: how many.
        batch_size: images in a gradient.
        dirichlet: concentration of the classes' uneven shares; None: all hold all.
        seed: determines shares and order.
    """

    computes = True

    def __init__(
        self, ranks: int, batch_size: int, dirichlet: float | None, seed: int
    ) -> None:
        images = digits.load(TaskOptions())
        self._classes = images.classes
        self._train = _inputs(images.train, images.mean[0], images.std[0])
        self._test = _inputs(images.test, images.mean[0], images.std[0])
        self._labels = images.train_labels.astype(np.intp)
        self._test_labels = images.test_labels.astype(np.intp)
        self._batches = [
            ShuffledBatches(share, batch_size, generator_for(seed, Purpose.ORDER, rank))
            for rank, share in enumerate(self._shares(ranks, dirichlet, seed))
        ]

    def _shares(self, ranks: int, dirichlet: float | None, seed: int) -> list[Indices]:
        if dirichlet is None:
            return [np.arange(len(self._labels))] * ranks
        return dirichlet_partition(self._labels, ranks, dirichlet, seed)

    def start(self) -> Floats:
        """All at zero."""
        return np.zeros((len(self._batches), self._train.shape[1] * self._classes))

    def gradient(self, rank: int, x: Floats) -> tuple[float | None, Floats]:
        """Of the mean cross-entropy of the rank's next batch."""
        chosen = self._batches[rank].take()
        inputs, labels = self._train[chosen], self._labels[chosen]
        surprise, shares = self._cross_entropy(inputs, labels, x)
        shares[np.arange(len(labels)), labels] -= 1.0
        gradient = inputs.T @ shares / len(labels)
        return float(surprise.mean()), gradient.ravel()

    def evaluate(self, x: Floats) -> Scores:
        """Cross-entropy and accuracy on the test set."""
        surprise, shares = self._cross_entropy(self._test, self._test_labels, x)
        right = shares.argmax(axis=1) == self._test_labels
        return float(surprise.mean()), float(right.mean())

    def _cross_entropy(
        self, inputs: Floats, labels: NDArray[np.intp], x: Floats
    ) -> tuple[Floats, Floats]:
        """Loss of each image, and the shares of the classes."""
        scores = inputs @ x.reshape(-1, self._classes)
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        total = shares.sum(axis=1, keepdims=True)
        loss = np.log(total[:, 0]) - scores[np.arange(len(labels)), labels]
        return loss, shares / total


def _inputs(images: Images, mean: float, std: float) -> Floats:
    """Pixels of unit scale, and a constant; one row for each image."""
    pixels = images.take(np.arange(len(images))).reshape(len(images), -1)
    scaled = (pixels - mean) / std
    return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)
