"""ImageNet, or any other photographs in one folder for each class; needs torchvision.

`data_dir` holds `train/CLASS/*` and `val/CLASS/*`. Files are listed when a run starts and
decoded when they are needed. Training images are a random part of the photograph, mirrored
at random, at 224x224 pixels; test images its middle.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

import numpy as np

from acidmpi.errors import ConfigError, DataError
from acidmpi.tasks.images import ImageSet, Labels, Pixels
from acidmpi.tasks.interface import TaskDefaults, TaskOptions
from acidmpi.tasks.sampling import Indices

SIDE = 224
KEPT = 224 / 256
"""Share of a test image's shorter side that is kept."""

AREA = (0.08, 1.0)
"""Share of a photograph's area that a training image shows, at least and at most."""

RATIO = (3 / 4, 4 / 3)
"""Of its width to its height."""

ATTEMPTS = 10
ENDINGS = (".jpg", ".jpeg", ".png")
THREADS = 4

DEFAULTS = TaskDefaults(
    epochs=90,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-5,
    model="resnet50-imagenet",
    decays=(30 / 90, 60 / 90, 80 / 90),
    needs_data_dir=True,
)
"""The recipe of the paper; the rate falls after 30, 60 and 80 of 90 epochs."""

CURE = (
    "give `data_dir` as the folder that holds train/CLASS/*.JPEG and val/CLASS/*.JPEG, "
    "one folder for each class in both"
)

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels of the photograph."""

Place = Callable[[int, int], tuple[Box, bool]]
"""From the width and height of a photograph: the part to take, and whether to mirror it."""

Read = Callable[[Path, Place, int], Pixels]
"""Reads part of a photograph as (3, side, side)."""


@final
class FolderImages:
    """Photographs in files, decoded by a few threads when they are asked for.

    Args:
        files: numbered in this order.
        read: decodes one.
        side: of the images made from them.
    """

    def __init__(self, files: Sequence[Path], read: Read, side: int = SIDE) -> None:
        self._files = files
        self._read = read
        self._side = side
        self._threads = ThreadPoolExecutor(THREADS, "acidmpi-images")

    def __len__(self) -> int:
        return len(self._files)

    def take(
        self, indices: Indices, generator: np.random.Generator | None = None
    ) -> Pixels:
        """A new array: random parts of images, or without a generator their middles."""
        places = [_place(generator) for _ in indices]

        def read(number: int) -> Pixels:
            path = self._files[indices[number]]
            return self._read(path, places[number], self._side)

        return np.stack(list(self._threads.map(read, range(len(indices)))))


def load(options: TaskOptions) -> ImageSet:
    """List the files under `options.data_dir`.

    Raises:
        ConfigError: there is no `data_dir`, or no torchvision.
        DataError: folders are missing, empty, or differ in their classes.
    """
    if options.data_dir is None:
        raise ConfigError(f"task imagenet needs `data_dir`, got none; {CURE}")
    read = torchvision_reader()
    folder = Path(options.data_dir)
    classes = _classes(folder / "train")
    train, train_labels = _files(folder / "train", classes)
    test, test_labels = _files(folder / "val", classes)
    return ImageSet(
        train=FolderImages(train, read),
        train_labels=train_labels,
        test=FolderImages(test, read),
        test_labels=test_labels,
        shape=(3, SIDE, SIDE),
        classes=len(classes),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        random_parts=True,
    )


def middle(width: int, height: int) -> tuple[Box, bool]:
    """The part of a test image."""
    side = max(1, round(KEPT * min(width, height)))
    return ((width - side) // 2, (height - side) // 2, side, side), False


def random_part(
    width: int, height: int, generator: np.random.Generator
) -> tuple[Box, bool]:
    """The part of a training image, of random area, proportions and place.

    After a few parts that do not fit, the largest in the middle that has the nearest
    allowed proportions (Szegedy et al. 2015, as torchvision has it).
    """
    mirrored = bool(generator.random() < 0.5)
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(generator.integers(width - w + 1))
            return (left, int(generator.integers(height - h + 1)), w, h), mirrored
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w = min(width, max(1, round(height * ratio)))
    h = min(height, max(1, round(width / ratio)))
    return ((width - w) // 2, (height - h) // 2, w, h), mirrored


def torchvision_reader() -> Read:
    """Decodes with torchvision.

    Raises:
        ConfigError: it is not installed, or does not fit torch.
    """
    try:
        from torchvision.io import ImageReadMode, decode_image, read_file
        from torchvision.transforms.v2.functional import resized_crop
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"task imagenet needs torchvision, got {error}; pip install "
            "'acidmpi[imagenet]', in a version that fits your torch"
        ) from error

    def read(path: Path, place: Place, side: int) -> Pixels:
        try:
            image = decode_image(read_file(str(path)), ImageReadMode.RGB)
        except RuntimeError as error:
            raise DataError(f"{path} cannot be decoded: {error}; {CURE}") from error
        (left, top, width, height), mirrored = place(image.shape[2], image.shape[1])
        part = resized_crop(image, top, left, height, width, [side, side])
        pixels: Pixels = part.numpy()
        return pixels[:, :, ::-1] if mirrored else pixels

    return read


def _place(generator: np.random.Generator | None) -> Place:
    """Draws now what threads will use later, in any order."""
    if generator is None:
        return middle
    own = np.random.default_rng(generator.integers(2**63))
    return lambda width, height: random_part(width, height, own)


def _classes(folder: Path) -> list[str]:
    found = _listed(folder, lambda path: path.is_dir())
    if not found:
        raise DataError(
            f"{folder} must hold a folder for each class, found none; {CURE}"
        )
    return [path.name for path in found]


def _files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], Labels]:
    """All images of a set, and the number of each one's class."""
    others = {path.name for path in _listed(folder, lambda path: path.is_dir())}
    if others != set(classes):
        odd = sorted(others.symmetric_difference(classes))
        raise DataError(
            f"{folder} must have the same classes as the training set, but {odd[0]!r} is "
            f"in one of them only; {CURE}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = _listed(folder / name, lambda p: p.suffix.lower() in ENDINGS)
        if not found:
            raise DataError(
                f"{folder / name} must hold images ({', '.join(ENDINGS)}), found none; "
                f"{CURE}"
            )
        files += found
        labels += [number] * len(found)
    return files, np.array(labels, np.int64)


def _listed(folder: Path, keep: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if keep(path))
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}; {CURE}") from error
