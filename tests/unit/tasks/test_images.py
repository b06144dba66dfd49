import numpy as np
import pytest

from acidmpi.errors import ConfigError, DataError
from acidmpi.tasks import cifar10, digits
from acidmpi.tasks.images import crop_and_flip
from acidmpi.tasks.interface import TaskOptions

SMALL = 7
"""Records in the made-up CIFAR-10 files."""


def windows(image, pad):
    """Every shift of a padded image, plain and mirrored."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            shifted = padded[:, top : top + height, left : left + width]
            yield from (shifted, shifted[..., ::-1])


def test_crop_and_flip_gives_a_window_of_each_padded_image():
    generator = np.random.default_rng(0)
    images = generator.integers(1, 256, (20, 3, 5, 6), dtype=np.uint8)
    changed = crop_and_flip(images, generator, pad=2)
    assert changed.dtype == np.uint8
    for before, after in zip(images, changed, strict=True):
        assert any((after == window).all() for window in windows(before, 2))


def test_crop_and_flip_reaches_every_shift_and_is_seeded():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3)
    images = np.repeat(image, 2000, axis=0)
    changed = crop_and_flip(images, np.random.default_rng(1), pad=1)
    assert len(np.unique(changed, axis=0)) == 3 * 3 * 2
    again = crop_and_flip(images, np.random.default_rng(1), pad=1)
    assert (changed == again).all()


def test_digits_are_complete_and_split_1437_to_360():
    images = digits.load(TaskOptions())
    assert (len(images.train), len(images.test)) == (1437, 360)
    assert (len(images.train_labels), len(images.test_labels)) == (1437, 360)
    pixels = images.train.take(np.arange(1437))
    assert pixels.shape == (1437, 1, 8, 8)
    assert (pixels.dtype, pixels.max()) == (np.uint8, 16)
    both = np.concatenate([images.train_labels, images.test_labels])
    # The counts by digit that the data set's own description gives for its test part.
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(both).tolist() == counts
    assert pixels.mean() == pytest.approx(images.mean[0], abs=1e-3)
    assert pixels.std() == pytest.approx(images.std[0], abs=1e-3)


def test_subset_is_nested_fixed_and_bounded():
    images = digits.load(TaskOptions())
    small, large = images.subset(50), images.subset(1000)
    first = np.arange(50)
    assert (len(small.train), len(small.test), len(large.test)) == (50, 50, 360)
    assert (small.train.take(first) == large.train.take(first)).all()
    assert (small.train_labels == large.train_labels[:50]).all()
    with pytest.raises(ConfigError, match="at most the 1437 training images, got 1438"):
        images.subset(1438)


def record(number):
    """A record whose label and pixels all tell its number."""
    return np.r_[number % 10, np.full(3072, number % 251)].astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny data set in the standard layout."""
    monkeypatch.setattr(cifar10, "RECORDS", SMALL)
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for start, name in enumerate((*cifar10.TRAIN_FILES, *cifar10.TEST_FILES)):
        numbers = range(start * SMALL, (start + 1) * SMALL)
        (inner / name).write_bytes(b"".join(record(n).tobytes() for n in numbers))
    return inner


@pytest.mark.parametrize("step", ["", ".."])
def test_cifar10_gathers_records_across_files(folder, step):
    images = cifar10.load(TaskOptions(data_dir=folder / step))
    indices = np.array([34, 0, 7, 6, 7, 20])
    pixels = images.train.take(indices)
    assert pixels.shape == (6, 3, 32, 32)
    assert (pixels[:, 0, 0, 0] == indices).all()
    assert (pixels == pixels[:, :1, :1, :1]).all()
    assert (images.train_labels[indices] == indices % 10).all()
    assert (len(images.train), len(images.test)) == (35, 7)
    assert images.test.take(np.array([0]))[0, 0, 0, 0] == 35


def test_cifar10_planes_are_red_green_blue_rows(folder):
    path = folder / "data_batch_1.bin"
    pixels = np.arange(3072, dtype=np.int64).astype(np.uint8)
    path.write_bytes(b"\x03" + pixels.tobytes() + path.read_bytes()[3073:])
    images = cifar10.load(TaskOptions(data_dir=folder))
    assert (images.train.take(np.array([0]))[0].ravel() == pixels).all()


def test_cifar10_names_the_file_that_is_missing(folder):
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin must have .*no such file"):
        cifar10.load(TaskOptions(data_dir=folder))


def test_cifar10_names_the_file_that_is_truncated_and_both_sizes(folder):
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    sizes = rf"test_batch\.bin must have {SMALL * 3073} bytes, found {SMALL * 3073 - 1}"
    with pytest.raises(DataError, match=sizes + r" bytes; unpack .*`data_dir`"):
        cifar10.load(TaskOptions(data_dir=folder))


def test_cifar10_refuses_labels_that_cannot_be(folder):
    path = folder / "data_batch_5.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"labels in .*data_batch_5\.bin .*found 10"):
        cifar10.load(TaskOptions(data_dir=folder))


def test_cifar10_needs_a_folder():
    with pytest.raises(ConfigError, match="needs `data_dir`"):
        cifar10.load(TaskOptions())
