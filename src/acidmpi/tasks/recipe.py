"""The training recipe of the paper: how many gradients, and the learning rate of each.

A run is a fixed amount of work: epochs over the training set, shared by all ranks. The
learning rate follows the *global* progress through that work, so all ranks agree on it
whatever their own speed.
"""

import math
from collections.abc import Sequence

REFERENCE_BATCH = 256
"""Samples in one global step for which a learning rate is taken as tuned."""


def total_gradients(epochs: float, samples_per_epoch: int, batch_size: int) -> int:
    """Gradients of all ranks together in `epochs`; at least one."""
    return max(1, math.ceil(epochs * samples_per_epoch / batch_size))


def scaled_rate(lr: float, batch_size: int, size: int) -> float:
    """The rate that the warm-up ends at: `lr * max(1, batch_size * size / 256)`.

    The linear rule compensates for the fewer steps that each of many ranks takes. Where
    all ranks together use fewer than 256 samples a step, the rule read literally would
    turn the warm-up into a cool-down below the rate that was asked for; `lr` is kept.
    """
    return lr * max(1.0, batch_size * size / REFERENCE_BATCH)


def learning_rate(
    progress: float,
    *,
    lr: float,
    batch_size: int,
    size: int,
    epochs: float,
    warmup_epochs: float = 5.0,
    decays: Sequence[float] = (0.5, 0.75),
) -> float:
    """The learning rate at `progress` through the work of all ranks.

    Args:
        progress: share of the total gradients that is done, 0 to 1.
        lr: rate at the start.
        batch_size: samples in a gradient of one rank.
        size: number of ranks.
        epochs: length of the run.
        warmup_epochs: length of the linear rise from `lr` to `scaled_rate(...)`.
        decays: values of `progress` from each of which the rate is divided by ten.
    """
    progress = min(max(progress, 0.0), 1.0)
    risen = min(1.0, progress * epochs / warmup_epochs) if warmup_epochs > 0 else 1.0
    rate = lr + risen * (scaled_rate(lr, batch_size, size) - lr)
    return rate * 0.1 ** sum(progress >= decay for decay in decays)
