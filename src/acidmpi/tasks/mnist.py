"""MNIST, Fashion-MNIST and whatever else lies in the same four IDX files.

Images and labels of the training and of the test set, under their original names, plain
or as `.gz`. Pixels are normalised by the training set's own mean and standard deviation,
so that either data set may lie in the folder.
"""

from pathlib import Path

import numpy as np

from acidmpi.errors import ConfigError, DataError
from acidmpi.tasks.idx import Bytes, read_idx
from acidmpi.tasks.images import ArrayImages, ImageSet, Labels
from acidmpi.tasks.interface import TaskDefaults, TaskOptions

CLASSES = 10
SUBFOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")
IMAGES_AT_ONCE = 1000
LEVELS = 256

DEFAULTS = TaskDefaults(
    epochs=10,
    batch_size=64,
    lr=0.05,
    momentum=0.9,
    weight_decay=5e-4,
    model="lenet",
    needs_data_dir=True,
)
"""Usual values, not tuned."""

CURE = (
    "give `data_dir` as the folder of train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or as .gz"
)


def load(options: TaskOptions) -> ImageSet:
    """Read the four files under `options.data_dir`.

    Raises:
        ConfigError: there is no `data_dir`.
        DataError: a file is missing, truncated, of another kind, or does not fit the
            others.
    """
    if options.data_dir is None:
        raise ConfigError(f"task mnist needs `data_dir`, got none; {CURE}")
    folder = _folder(Path(options.data_dir))
    train, train_labels = _pair(folder, "train")
    test, test_labels = _pair(folder, "t10k")
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"images of both sets in {folder} must have one size, got "
            f"{train.shape[1:]} to train on and {test.shape[1:]} to test on; {CURE}"
        )
    mean, std = _moments(train)
    return ImageSet(
        train=ArrayImages(train[:, None]),
        train_labels=train_labels,
        test=ArrayImages(test[:, None]),
        test_labels=test_labels,
        shape=(1, *train.shape[1:]),
        classes=CLASSES,
        mean=(mean,),
        std=(std,),
    )


def _folder(data_dir: Path) -> Path:
    """Where the training images are, at `data_dir` or where torchvision puts them."""
    for name in SUBFOLDERS:
        if _found(data_dir / name, "train-images", 3) is not None:
            return data_dir / name
    return data_dir


def _found(folder: Path, what: str, dimensions: int) -> Path | None:
    stems = (f"{what}-idx{dimensions}-ubyte", f"{what}.idx{dimensions}-ubyte")
    paths = [folder / (stem + ending) for stem in stems for ending in ("", ".gz")]
    return next((path for path in paths if path.is_file()), None)


def _read(folder: Path, what: str, dimensions: int) -> tuple[Bytes, Path]:
    path = _found(folder, what, dimensions)
    if path is None:
        missing = folder / f"{what}-idx{dimensions}-ubyte"
        raise DataError(f"there must be {missing} (or .gz), found none; {CURE}")
    return read_idx(path, dimensions, CURE), path


def _pair(folder: Path, which: str) -> tuple[Bytes, Labels]:
    """Images (count, height, width) and their labels."""
    images, images_path = _read(folder, f"{which}-images", 3)
    labels, labels_path = _read(folder, f"{which}-labels", 1)
    if len(images) != len(labels) or images.size == 0:
        raise DataError(
            f"{images_path} and {labels_path} must have equally many entries and at "
            f"least one, found {len(images)} images of {images.shape[1:]} pixels and "
            f"{len(labels)} labels; {CURE}"
        )
    if int(labels.max()) >= CLASSES:
        raise DataError(
            f"labels in {labels_path} must be below {CLASSES}, found "
            f"{int(labels.max())}; {CURE}"
        )
    return images, labels


def _moments(images: Bytes) -> tuple[float, float]:
    """Mean and standard deviation of all pixels; the latter is at least 1."""
    counts = np.zeros(LEVELS)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        block = images[start : start + IMAGES_AT_ONCE]
        counts += np.bincount(block.ravel(), minlength=LEVELS)
    shares = counts / counts.sum()
    levels = np.arange(LEVELS)
    mean = float(shares @ levels)
    return mean, max(1.0, float(np.sqrt(shares @ (levels - mean) ** 2)))
