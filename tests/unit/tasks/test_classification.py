import itertools
import json

import numpy as np
import pytest
import torch

from acidmpi.errors import ConfigError
from acidmpi.tasks.classification import ClassificationTask
from acidmpi.tasks.digits import DEFAULTS
from acidmpi.tasks.images import ArrayImages, ImageSet, crop_and_flip
from acidmpi.tasks.interface import TaskOptions
from acidmpi.tasks.registry import load_task


def take(task, count):
    return list(itertools.islice(task.batches(), count))


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def augmented(**options):
    """A small task with augmentation."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    images = ImageSet(
        train=ArrayImages(pixels),
        train_labels=labels,
        test=ArrayImages(pixels),
        test_labels=labels,
        shape=(3, 8, 8),
        classes=10,
        mean=(100.0, 120.0, 140.0),
        std=(50.0, 60.0, 70.0),
        augment=crop_and_flip,
    )
    return ClassificationTask("small", DEFAULTS, images, TaskOptions(**options))


def test_model_is_fixed_by_the_seed_and_torchs_generator_is_left_alone():
    before = torch.get_rng_state()
    models = [
        load_task("digits", seed=seed, rank=rank, size=2).make_model()
        for seed, rank in ((0, 0), (0, 1), (1, 0))
    ]
    assert torch.equal(torch.get_rng_state(), before)
    zero, one, other = (list(model.parameters()) for model in models)
    assert same(zero, one)
    assert not same(zero, other)


def test_batches_are_normalised_and_of_the_size_asked_for():
    task = load_task("digits", batch_size=1437)
    (inputs, targets) = next(task.batches())
    assert inputs.shape == (1437, 1, 8, 8)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert inputs.mean().item() == pytest.approx(0, abs=1e-3)
    assert inputs.std().item() == pytest.approx(1, abs=1e-3)
    assert (task.train_size, task.samples_per_epoch) == (1437, 1437)


def test_targets_belong_to_their_inputs():
    task = augmented(augment=False, batch_size=30)
    inputs, targets = next(task.batches())
    mean = torch.tensor([100.0, 120.0, 140.0]).view(1, 3, 1, 1)
    std = torch.tensor([50.0, 60.0, 70.0]).view(1, 3, 1, 1)
    pixels = (inputs * std + mean).round().to(torch.uint8)
    originals = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    for image, target in zip(pixels.numpy(), targets, strict=True):
        (index,) = np.flatnonzero((originals == image).all(axis=(1, 2, 3)))
        assert index % 10 == target


def test_every_rank_shuffles_with_a_seed_of_its_own():
    first, again, other = (
        next(load_task("digits", seed=3, rank=rank, size=4).batches())
        for rank in (0, 0, 1)
    )
    assert same(first, again)
    assert not same(first, other)


def test_dirichlet_shares_cover_the_set_and_are_kept_to():
    tasks = [load_task("digits", dirichlet=0.3, rank=r, size=4) for r in range(4)]
    assert sum(task.train_size for task in tasks) == 1437
    assert {task.samples_per_epoch for task in tasks} == {1437}
    counts = []
    for task in tasks:
        batches = take(task, -(-task.train_size // task.batch_size))
        targets = torch.cat([targets for _, targets in batches])[: task.train_size]
        counts.append(torch.bincount(targets, minlength=10))
    everything = load_task("digits", batch_size=1437)
    expected = torch.bincount(next(everything.batches())[1], minlength=10)
    assert torch.equal(sum(counts), expected)
    assert min(int(count.min()) for count in counts) < 10


@pytest.mark.parametrize("drawn", [0, 1, 5])
def test_restored_task_goes_on_with_the_same_batches(drawn):
    task, other = augmented(), augmented(seed=9)
    take(task, drawn)
    state = json.loads(json.dumps(task.state()))
    expected = take(task, 4)
    other.restore(state)
    for one, two in zip(take(other, 4), expected, strict=True):
        assert same(one, two)


def test_augmentation_can_be_left_out_and_spares_the_order():
    plain, changed = augmented(augment=False), augmented()
    (one, targets), (two, same_targets) = (next(t.batches()) for t in (plain, changed))
    assert torch.equal(targets, same_targets)
    assert not torch.equal(one, two)


def test_evaluation_is_exact_uses_evaluation_mode_and_puts_it_back():
    task = load_task("digits", model="resnet18", subset=200)
    model = task.make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, accuracy = task.evaluate(model)
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    model.eval()
    assert task.evaluate(model)[1] == accuracy
    assert not model.training
    assert 0 <= accuracy <= 1
    assert loss > 0


def test_evaluation_of_a_constant_model_is_known():
    task = load_task("digits")
    model = task.make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[3].bias[4] = 1e-6
    loss, accuracy = task.evaluate(model)
    assert loss == pytest.approx(np.log(10), rel=1e-4)
    assert accuracy == pytest.approx(48 / 360)


def test_loss_follows_the_type_of_the_model():
    task = load_task("digits")
    model = task.make_model().double()
    loss = task.loss(model, next(task.batches()))
    assert (loss.dtype, loss.shape) == (torch.float64, ())
    assert task.evaluate(model)[0] > 0


def test_unknown_model_is_refused_when_the_task_is_loaded():
    with pytest.raises(ConfigError, match="unknown model 'vgg'; known: mlp"):
        load_task("digits", model="vgg")
