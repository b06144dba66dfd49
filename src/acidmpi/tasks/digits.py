"""The UCI handwritten digits that come with the package: 1,797 images of 8x8 pixels.

The split is fixed by the order in the file: 1,437 images to train on, 360 to test on.
"""

import zipfile
from importlib.resources import files

import numpy as np

from acidmpi.errors import DataError
from acidmpi.tasks.images import ArrayImages, ImageSet
from acidmpi.tasks.interface import TaskDefaults, TaskOptions

TRAIN_SIZE = 1437

DEFAULTS = TaskDefaults(
    epochs=80,
    batch_size=16,
    lr=0.05,
    momentum=0.9,
    weight_decay=5e-4,
    model="mlp",
)
"""About 7,200 small gradients in all; on each of 64 ranks, 112 are still enough."""


def load(options: TaskOptions) -> ImageSet:
    """Read the file shipped with the package; `options.data_dir` is not used."""
    del options
    resource = files("acidmpi.tasks").joinpath("data", "digits.npz")
    try:
        with resource.open("rb") as stream, np.load(stream) as archive:
            images, labels = archive["images"], archive["labels"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the digits shipped with the package cannot be read from {resource}: "
            f"{error}; install acidmpi again"
        ) from error
    pixels = images[:, None]
    return ImageSet(
        train=ArrayImages(pixels[:TRAIN_SIZE]),
        train_labels=labels[:TRAIN_SIZE],
        test=ArrayImages(pixels[TRAIN_SIZE:]),
        test_labels=labels[TRAIN_SIZE:],
        shape=(1, 8, 8),
        classes=10,
        mean=(4.876,),
        std=(6.014,),
    )
