"""Residual networks of "Deep residual learning for image recognition", He et al. 2016.

Depths 18 and 34 stack blocks of two 3x3 convolutions; depths 50, 101 and 152 stack
bottlenecks of 1x1, 3x3 and 1x1, whose 3x3 carries the stride, as is usual since.
"""

from typing import final

from torch import Tensor, nn
from torch.nn.functional import relu

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
WIDTHS = (64, 128, 256, 512)
BOTTLENECK_FROM = 50
EXPANSION = 4
"""Channels out of a bottleneck over its inner channels."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """A convolution that keeps the size up to its stride, then batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


@final
class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)), the shortcut a projection where the shape changes.

    Args:
        inputs: channels in.
        width: inner channels.
        stride: of the block.
        bottleneck: whether the branch narrows and widens again.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * (EXPANSION if bottleneck else 1)
        self.branch = (
            _bottleneck_branch(inputs, width, stride)
            if bottleneck
            else _basic_branch(inputs, width, stride)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else _convolution(inputs, outputs, 1, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        return relu(self.branch(x) + self.shortcut(x))


def _basic_branch(inputs: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, width, 3, stride),
        nn.ReLU(),
        _convolution(width, width, 3),
    )


def _bottleneck_branch(inputs: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, width, 1),
        nn.ReLU(),
        _convolution(width, width, 3, stride),
        nn.ReLU(),
        _convolution(width, width * EXPANSION, 1),
    )


def _stem(channels: int, imagenet: bool) -> nn.Module:
    if not imagenet:
        return nn.Sequential(_convolution(channels, WIDTHS[0], 3), nn.ReLU())
    return nn.Sequential(
        _convolution(channels, WIDTHS[0], 7, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
    )


def _blocks(depth: int) -> nn.Sequential:
    bottleneck = depth >= BOTTLENECK_FROM
    inputs, blocks = WIDTHS[0], nn.Sequential()
    for stage, (count, width) in enumerate(zip(STAGES[depth], WIDTHS, strict=True)):
        for block in range(count):
            stride = 2 if block == 0 and stage > 0 else 1
            blocks.append(Residual(inputs, width, stride, bottleneck))
            inputs = width * (EXPANSION if bottleneck else 1)
    return blocks


def _initialise(model: nn.Module, zero_gamma: bool) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_gamma and isinstance(module, Residual):
            *_, last = module.branch.modules()
            assert isinstance(last, nn.BatchNorm2d)
            nn.init.zeros_(last.weight)


def resnet(
    depth: int,
    *,
    channels: int = 3,
    classes: int = 10,
    imagenet_stem: bool = False,
    zero_gamma: bool = False,
) -> nn.Module:
    """A residual network, its weights drawn from torch's global generator.

    Args:
        depth: a key of `STAGES`.
        channels: of an image.
        classes: number of outputs.
        imagenet_stem: 7x7 convolution of stride 2 and max-pooling, for large images;
            else one 3x3 convolution, for images of 32x32.
        zero_gamma: begin with every block as the identity, by a last scale of zero.
    """
    outputs = WIDTHS[-1] * (EXPANSION if depth >= BOTTLENECK_FROM else 1)
    model = nn.Sequential(
        _stem(channels, imagenet_stem),
        _blocks(depth),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(outputs, classes),
    )
    _initialise(model, zero_gamma)
    return model
