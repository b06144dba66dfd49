"""MNIST from its own files: every way in which they can be wrong is told."""

import gzip
import struct

import numpy as np
import pytest

from acidmpi.errors import ConfigError, DataError
from acidmpi.tasks import mnist
from acidmpi.tasks.idx import read_idx
from acidmpi.tasks.interface import TaskOptions
from acidmpi.tasks.registry import load_task

SHAPE = (6, 5)
TRAIN, TEST = 40, 12
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array):
    """The array as an IDX file."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE))


def write(folder, ending=""):
    folder.mkdir(parents=True, exist_ok=True)
    for which, count, seed in (("train", TRAIN, 1), ("t10k", TEST, 2)):
        for what, array in (
            ("images-idx3", pixels(count, seed)),
            ("labels-idx1", np.arange(count) % 10),
        ):
            data = idx(array)
            path = folder / f"{which}-{what}-ubyte{ending}"
            path.write_bytes(gzip.compress(data) if ending else data)


def load(folder):
    return mnist.load(TaskOptions(data_dir=folder))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
def test_images_and_labels_come_back(tmp_path, ending, below):
    write(tmp_path / below, ending)
    images = load(tmp_path)
    assert (images.shape, images.classes) == ((1, *SHAPE), 10)
    assert (len(images.train), len(images.test)) == (TRAIN, TEST)
    some = np.array([7, 0, 39])
    expected = pixels(TRAIN, 1)
    assert (images.train.take(some)[:, 0] == expected[some]).all()
    assert (images.test.take(np.arange(TEST))[:, 0] == pixels(TEST, 2)).all()
    assert (images.train_labels == np.arange(TRAIN) % 10).all()
    assert images.mean == (pytest.approx(expected.mean()),)
    assert images.std == (pytest.approx(expected.std()),)


def test_moments_are_those_of_many_blocks():
    images = np.random.default_rng(0).integers(0, 256, (2500, 2, 2), dtype=np.uint8)
    mean, std = mnist._moments(images)
    assert (mean, std) == (pytest.approx(images.mean()), pytest.approx(images.std()))
    assert mnist._moments(np.zeros((3, 2, 2), np.uint8)) == (0.0, 1.0)


@pytest.mark.parametrize("model", ["lenet", "mlp"])
def test_both_models_learn_from_it(folder, model):
    task = load_task("mnist", data_dir=folder, model=model, batch_size=4)
    network = task.make_model()
    loss = task.loss(network, next(task.batches()))
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())
    assert 0 < task.evaluate(network)[0] < 10


def test_the_other_spelling_of_names_is_read(folder):
    (folder / IMAGES).rename(folder / "train-images.idx3-ubyte")
    assert len(load(folder).train) == TRAIN


def test_it_needs_a_folder():
    with pytest.raises(ConfigError, match="needs `data_dir`"):
        mnist.load(TaskOptions())


@pytest.mark.parametrize(
    "name", [IMAGES, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name} \(or \.gz\), found none; give"):
        load(folder)


def spoil(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


SPOILT = {
    "truncated": (
        IMAGES,
        lambda d: d[:-1],
        "must have 1216 bytes for 40 x 6 x 5 .*1215",
    ),
    "too long": (LABELS, lambda d: d + b"\0", "must have 48 bytes .*found 49"),
    "images for labels": (LABELS, lambda d: idx(pixels(3, 0)), "1 dimensions.*08 03"),
    "labels for images": (IMAGES, lambda d: idx(np.zeros(3)), "3 dimensions.*08 01"),
    "floats": (IMAGES, lambda d: b"\0\0\x0d\x03" + d[4:], "unsigned bytes"),
    "empty": (IMAGES, lambda d: b"", "found nothing"),
    "no dimensions": (IMAGES, lambda d: d[:9], "ends after 9 bytes"),
    "a web page": (LABELS, lambda d: b"<html>" * 20, "found 3c 68 74 6d"),
    "labels beyond 9": (LABELS, lambda d: d[:-1] + b"\x0a", "below 10, found 10"),
    "fewer labels": (LABELS, lambda d: idx(np.zeros(39)), "40 images .* 39 labels"),
    "no images": (IMAGES, lambda d: idx(np.zeros((0, *SHAPE))), "0 images"),
    "another size": (IMAGES, lambda d: idx(np.zeros((TRAIN, 2, 2))), "one size"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_file_that_is_wrong_is_told_with_what_was_found(folder, fault):
    name, change, text = SPOILT[fault]
    spoil(folder, name, change)
    with pytest.raises(DataError, match=text) as caught:
        load(folder)
    assert "give `data_dir`" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda d: d[:-9], lambda d: b"plain" + d, lambda d: b""]
)
def test_a_compressed_file_that_cannot_be_unpacked_is_told(tmp_path, change):
    write(tmp_path, ".gz")
    spoil(tmp_path, IMAGES + ".gz", change)
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz"):
        load(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path, 1, "cure")
