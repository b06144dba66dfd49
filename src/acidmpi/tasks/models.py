"""Models by name, for images of any shape and number of classes."""

import math

from torch import nn

from acidmpi.tasks.interface import MODEL_NAMES, known_name
from acidmpi.tasks.resnet import resnet

Shape = tuple[int, int, int]

HIDDEN = 64


def make_model(name: str, *, shape: Shape, classes: int) -> nn.Module:
    """Build model `name`, one of `MODEL_NAMES`, from torch's global generator.

    Args:
        name: which model.
        shape: channels, height and width of an image.
        classes: number of outputs.
    """
    known_name("model", name, MODEL_NAMES)
    if name == "mlp":
        return mlp(shape, classes)
    if name == "cnn":
        return small_cnn(shape, classes)
    if name == "lenet":
        return lenet(shape, classes)
    depth, _, stem = name.removeprefix("resnet").partition("-")
    return resnet(
        int(depth), channels=shape[0], classes=classes, imagenet_stem=stem == "imagenet"
    )


def mlp(shape: Shape, classes: int) -> nn.Module:
    """One hidden layer on the flattened image."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, classes),
    )


def lenet(shape: Shape, classes: int) -> nn.Module:
    """Two convolutions, each halved by pooling, then two linear layers.

    The plan of LeCun et al. 1998 with rectifiers; images of 4x4 pixels at least.
    """
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def small_cnn(shape: Shape, classes: int) -> nn.Module:
    """Three convolutions and two halvings, then two linear layers; no normalisation."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )
