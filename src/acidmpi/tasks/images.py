"""Sets of labelled images, kept as bytes until a batch needs them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import ConfigError
from acidmpi.tasks.sampling import Indices, Purpose, generator_for

Pixels = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]
Augment = Callable[[Pixels, np.random.Generator], Pixels]

SUBSET_SEED = 0
"""The same subset in every run, so that runs with different seeds can be compared."""


class Images(Protocol):
    """Images that can be gathered by index."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def take(
        self, indices: Indices, generator: np.random.Generator | None = None
    ) -> Pixels:
        """A new array (count, channels, height, width) of the images at `indices`.

        Args:
            indices: which.
            generator: chooses a random part of each, where images are photographs of
                any size (`ImageSet.random_parts`); others pass it over.
        """
        ...


@final
class ArrayImages:
    """Images in one array (count, channels, height, width)."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def take(
        self, indices: Indices, generator: np.random.Generator | None = None
    ) -> Pixels:
        """A new array of the images at `indices`."""
        del generator
        return self._pixels[indices]


@final
class SelectedImages:
    """Some of other images, which are not copied."""

    def __init__(self, images: Images, selection: Indices) -> None:
        self._images = images
        self._selection = selection

    def __len__(self) -> int:
        return len(self._selection)

    def take(
        self, indices: Indices, generator: np.random.Generator | None = None
    ) -> Pixels:
        """A new array of the images at `indices` of the selection."""
        return self._images.take(self._selection[indices], generator)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A training and a test set, and how their bytes become inputs."""

    train: Images
    train_labels: Labels
    test: Images
    test_labels: Labels
    shape: tuple[int, int, int]
    """Channels, height, width."""

    classes: int
    mean: tuple[float, ...]
    """Of each channel, over the training set, in units of a pixel's value."""

    std: tuple[float, ...]
    augment: Augment | None = None
    """Random change of a training batch; None where the task has none."""

    random_parts: bool = False
    """Whether training images are random parts of what is stored."""

    def subset(self, count: int) -> "ImageSet":
        """The first `count` of a fixed permutation, of the test set at most as many."""
        if count > len(self.train):
            raise ConfigError(
                f"subset must be at most the {len(self.train)} training images, "
                f"got {count}"
            )
        generator = generator_for(SUBSET_SEED, Purpose.SUBSET)
        train = generator.permutation(len(self.train))[:count]
        test = generator.permutation(len(self.test))[:count]
        return replace(
            self,
            train=SelectedImages(self.train, train),
            train_labels=self.train_labels[train],
            test=SelectedImages(self.test, test),
            test_labels=self.test_labels[test],
        )


def crop_and_flip(
    images: Pixels, generator: np.random.Generator, pad: int = 4
) -> Pixels:
    """Shift each image by up to `pad` pixels, black coming in, and mirror half."""
    count, channels, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows = generator.integers(2 * pad + 1, size=(count, 1)) + np.arange(height)
    columns = generator.integers(2 * pad + 1, size=(count, 1)) + np.arange(width)
    mirrored = generator.random((count, 1)) < 0.5
    columns = np.where(mirrored, columns[:, ::-1], columns)
    changed: Pixels = padded[
        np.arange(count)[:, None, None, None],
        np.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
    return changed
