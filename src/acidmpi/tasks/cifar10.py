"""CIFAR-10 in its standard binary layout, mapped into memory and never copied whole.

A record is one byte of label and 3,072 bytes of pixels (red, green and blue planes of
32x32); five files of 10,000 records to train on and one to test on. Ranks of one node
share the pages of the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from acidmpi.errors import ConfigError, DataError
from acidmpi.tasks.images import ImageSet, Labels, Pixels, crop_and_flip
from acidmpi.tasks.interface import TaskDefaults, TaskOptions
from acidmpi.tasks.sampling import Indices

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
CLASSES = 10
SHAPE = (3, 32, 32)
RECORDS = 10_000
RECORD_BYTES = 1 + 3 * 32 * 32

DEFAULTS = TaskDefaults(
    epochs=300,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    model="resnet18",
    needs_data_dir=True,
)
"""The recipe of the paper."""

CURE = (
    "unpack cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html "
    f"and give `data_dir` as its folder {FOLDER} or the parent of it"
)


@final
class RecordImages:
    """Images of several mapped files, numbered through."""

    def __init__(self, files: Sequence[Pixels]) -> None:
        self._files = files

    def __len__(self) -> int:
        return RECORDS * len(self._files)

    def take(
        self, indices: Indices, generator: np.random.Generator | None = None
    ) -> Pixels:
        """A new array of the images at `indices`."""
        del generator
        records = np.empty((len(indices), RECORD_BYTES - 1), np.uint8)
        numbers, offsets = np.divmod(indices, RECORDS)
        for number, file in enumerate(self._files):
            here = numbers == number
            records[here] = file[offsets[here], 1:]
        return records.reshape(-1, *SHAPE)


def load(options: TaskOptions) -> ImageSet:
    """Map the files under `options.data_dir`, checking their sizes and labels."""
    if options.data_dir is None:
        raise ConfigError(f"task cifar10 needs `data_dir`, got none; {CURE}")
    folder = _folder(Path(options.data_dir))
    train = [_map(folder / name) for name in TRAIN_FILES]
    test = [_map(folder / name) for name in TEST_FILES]
    return ImageSet(
        train=RecordImages(train),
        train_labels=_labels(train),
        test=RecordImages(test),
        test_labels=_labels(test),
        shape=SHAPE,
        classes=CLASSES,
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
        augment=crop_and_flip,
    )


def _folder(data_dir: Path) -> Path:
    inner = data_dir / FOLDER
    return inner if inner.is_dir() else data_dir


def _map(path: Path) -> Pixels:
    expected = RECORDS * RECORD_BYTES
    try:
        found = path.stat().st_size if path.is_file() else None
        if found == expected:
            records = np.memmap(path, np.uint8, "r", shape=(RECORDS, RECORD_BYTES))
            return _checked(records, path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; {CURE}") from error
    size = "no such file" if found is None else f"{found} bytes"
    raise DataError(f"{path} must have {expected} bytes, found {size}; {CURE}")


def _checked(records: Pixels, path: Path) -> Pixels:
    largest = int(records[:, 0].max())
    if largest >= CLASSES:
        raise DataError(
            f"labels in {path} must be below {CLASSES}, found {largest}; {CURE}"
        )
    return records


def _labels(files: Sequence[Pixels]) -> Labels:
    return np.concatenate([file[:, 0] for file in files])
