"""Photographs in folders: which files, which parts of them, and what is missing."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import ConfigError, DataError
from acidmpi.tasks import imagenet
from acidmpi.tasks.imagenet import FolderImages, middle, random_part
from acidmpi.tasks.recipe import learning_rate
from acidmpi.tasks.registry import load_task

SIZES = st.integers(1, 900)


def inside(box, width, height):
    left, top, w, h = box
    return left >= 0 and top >= 0 and left + w <= width and top + h <= height and w * h


@given(SIZES, SIZES, st.integers(0, 2**32))
def test_parts_lie_inside(width, height, seed):
    box, _ = random_part(width, height, np.random.default_rng(seed))
    assert inside(box, width, height)
    assert inside(middle(width, height)[0], width, height)


def test_parts_have_all_areas_and_proportions_that_are_allowed():
    generator = np.random.default_rng(0)
    drawn = [random_part(500, 400, generator) for _ in range(4000)]
    areas = np.array([w * h / (500 * 400) for (_, _, w, h), _ in drawn])
    ratios = np.array([w / h for (_, _, w, h), _ in drawn])
    assert 0.07 < areas.min() < 0.1 < 0.9 < areas.max() <= 1.0
    assert 0.74 < ratios.min() < 0.77 < 1.3 < ratios.max() < 1.35
    assert 0.45 < np.mean([mirrored for _, mirrored in drawn]) < 0.55
    assert len({box[:2] for box, _ in drawn}) > 2000


def test_a_photograph_too_long_for_any_part_gives_its_middle():
    generator = np.random.default_rng(0)
    ((left, top, w, h), _) = random_part(1000, 10, generator)
    assert (top, h) == (0, 10)
    assert w == 13
    assert left == (1000 - 13) // 2


def test_the_middle_keeps_the_share_of_256_to_224():
    assert middle(256, 300) == ((16, 38, 224, 224), False)


def fake_read(path, place, side):
    """A picture of 40x30 whose pixels tell the part that was taken."""
    (left, top, _, _), mirrored = place(40, 30)
    return np.full((3, side, side), [[[int(path.stem)]], [[left + mirrored]], [[top]]])


def folder_of(tmp_path, count=3, classes=("cat", "dog")):
    for which in ("train", "val"):
        for name in classes:
            (tmp_path / which / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / which / name / f"{number}.JPEG").touch()
    (tmp_path / "train" / "cat" / "notes.txt").touch()
    return tmp_path


def test_the_generator_decides_the_parts_whatever_the_threads_do(tmp_path):
    folder_of(tmp_path)
    files = sorted((tmp_path / "train").rglob("*.JPEG"))
    images = FolderImages(files, fake_read, side=2)
    indices = np.array([5, 0, 2, 2])
    first = images.take(indices, np.random.default_rng(1))
    assert first.shape == (4, 3, 2, 2)
    np.testing.assert_array_equal(first[:, 0, 0, 0], [2, 0, 2, 2])
    np.testing.assert_array_equal(first, images.take(indices, np.random.default_rng(1)))
    assert (first != images.take(indices, np.random.default_rng(2))).any()
    assert (first[2] != first[3]).any()  # the same photograph, another part
    middles = images.take(indices)
    assert (middles[2] == middles[3]).all()


def test_a_task_of_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "torchvision_reader", lambda: fake_read)
    task = load_task(
        "imagenet",
        data_dir=folder_of(tmp_path),
        model="mlp",
        batch_size=4,
    )
    assert (task.samples_per_epoch, task.train_size) == (6, 6)
    inputs, targets = next(task.batches())
    assert tuple(inputs.shape) == (4, 3, 224, 224)
    assert set(targets.tolist()) <= {0, 1}
    before = task.state()
    twice = [next(task.batches())[0] for _ in range(2)]
    task.restore(before)
    again = [next(task.batches())[0] for _ in range(2)]
    assert all((a == b).all() for a, b in zip(twice, again, strict=True))
    loss, _ = task.evaluate(task.make_model())
    assert np.isfinite(loss)


def test_the_rate_falls_after_30_60_and_80_epochs_of_90():
    def rate(epoch):
        return learning_rate(
            epoch / 90,
            lr=0.1,
            batch_size=256,
            size=1,
            epochs=90,
            decays=imagenet.DEFAULTS.decays,
        )

    found = [rate(e) for e in (29.9, 30.1, 59.9, 60.1, 79.9, 80.1)]
    np.testing.assert_allclose(found, [0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4])


def test_without_torchvision_one_message_tells_the_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with pytest.raises(ConfigError, match=r"needs torchvision.*acidmpi\[imagenet\]"):
        load_task("imagenet", data_dir=tmp_path)


def spoil(tmp_path, how):
    folder_of(tmp_path)
    if how == "no val":
        (tmp_path / "val").rename(tmp_path / "other")
    if how == "another class":
        (tmp_path / "val" / "dog").rename(tmp_path / "val" / "frog")
    if how == "an empty class":
        for path in (tmp_path / "train" / "dog").iterdir():
            path.unlink()
    if how == "no classes":
        (tmp_path / "train").rename(tmp_path / "other")
        (tmp_path / "train").mkdir()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no val", r"cannot read .*val"),
        ("another class", "'dog' is in one of them only"),
        ("an empty class", r"dog must hold images"),
        ("no classes", "must hold a folder for each class"),
    ],
)
def test_folders_that_cannot_be_used_are_told(tmp_path, monkeypatch, how, said):
    monkeypatch.setattr(imagenet, "torchvision_reader", lambda: fake_read)
    spoil(tmp_path, how)
    with pytest.raises(DataError, match=said):
        load_task("imagenet", data_dir=tmp_path)


def test_it_needs_a_folder():
    with pytest.raises(ConfigError, match="imagenet needs `data_dir`"):
        load_task("imagenet")
