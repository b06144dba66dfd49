"""What an iteration computes: a model by name, a batch of random data, and its loss.

Residual networks are this package's own, with the layers of the originals for ImageNet;
other names of images' models are torchvision's, where that is installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from acidmpi.bench.encoder import (
    POSITIONS,
    SIZES,
    UNMASKED,
    VOCABULARY,
    Encoder,
    pretraining_loss,
)
from acidmpi.config.options import did_you_mean
from acidmpi.errors import ConfigError
from acidmpi.tasks.resnet import STAGES, resnet

CLASSES = 1000
MASKED_SHARE = 0.15
"""Of the words, those to be guessed."""

OWN_NAMES = (*(f"resnet{depth}" for depth in STAGES), *SIZES)


@dataclass(frozen=True)
class Workload:
    """A model and the batch that it sees in every iteration."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    loss: Callable[[Any], Tensor]
    """From what the module returns to a scalar."""

    unit: str
    """What a batch is made of, in the plural."""


def make_workload(
    name: str, *, batch_size: int, image_size: int, sentence_length: int, rank: int
) -> Workload:
    """Model `name`, the same on all ranks, and a batch, another one on each.

    Args:
        name: one of `OWN_NAMES`, or a classifier of torchvision.
        batch_size: images or sentences.
        image_size: height and width of an image, in pixels.
        sentence_length: in words, for encoders.
        rank: draws the batch.

    Raises:
        ConfigError: an unknown name, or a size that the model does not take.
    """
    generator = torch.Generator().manual_seed(rank)
    module = make_module(name)
    if name in SIZES:
        return _sentences(module, batch_size, sentence_length, generator)
    return _images(module, batch_size, image_size, generator)


def make_module(name: str) -> nn.Module:
    """The model alone, the same whenever it is made.

    Raises:
        ConfigError: an unknown name.
    """
    torch.manual_seed(0)
    if name in SIZES:
        return Encoder(SIZES[name])
    if name in OWN_NAMES:
        depth = int(name.removeprefix("resnet"))
        return resnet(depth, classes=CLASSES, imagenet_stem=True)
    return _torchvision(name)


def _torchvision(name: str) -> nn.Module:
    try:
        models = import_module("torchvision.models")
    except ImportError:
        known = ", ".join(OWN_NAMES)
        hint = did_you_mean(name, OWN_NAMES)
        raise ConfigError(
            f"--model must be one of {known}, or a name of torchvision, which is not "
            f"installed; got {name!r}{hint}"
        ) from None
    names: list[str] = models.list_models(module=models)
    if name not in names:
        known = ", ".join(OWN_NAMES)
        hint = did_you_mean(name, [*OWN_NAMES, *names])
        raise ConfigError(
            f"--model must be one of {known} or a classifier of torchvision, "
            f"got {name!r}{hint}"
        )
    module: nn.Module = models.get_model(name, weights=None, num_classes=CLASSES)
    return module


def _images(
    module: nn.Module, batch_size: int, image_size: int, generator: torch.Generator
) -> Workload:
    shape = (batch_size, 3, image_size, image_size)
    images = torch.randn(shape, generator=generator)
    labels = torch.randint(CLASSES, (batch_size,), generator=generator)
    loss = partial(_classification_loss, labels=labels)
    return Workload(module, (images,), loss, "images")


def _classification_loss(outputs: Any, labels: Tensor) -> Tensor:
    """Cross entropy; of the first output where a model has auxiliary ones."""
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return cross_entropy(scores, labels)


def _sentences(
    module: nn.Module, batch_size: int, length: int, generator: torch.Generator
) -> Workload:
    """Pairs of random sentences of random lengths, some of their words masked."""
    if not 2 <= length <= POSITIONS:
        raise ConfigError(
            f"--sentence-length must be from 2 to {POSITIONS}, got {length}"
        )
    shape = (batch_size, length)
    words = torch.randint(VOCABULARY, shape, generator=generator)
    place = torch.arange(length)
    ends = torch.randint(length // 2, length, (batch_size, 1), generator=generator)
    border = torch.randint(1, length, (batch_size, 1), generator=generator)
    masked = torch.rand(shape, generator=generator) < MASKED_SHARE
    masked[:, 0] = True
    loss = partial(
        pretraining_loss,
        labels=words.where(masked & (place <= ends), UNMASKED),
        follows=torch.randint(2, (batch_size,), generator=generator),
    )
    inputs = (words, (place >= border).long(), place <= ends)
    return Workload(module, inputs, loss, "sentences")
