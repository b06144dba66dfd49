"""What a run will do, from options and task: resolved values, work, schedule."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from acidmpi.config.train import TOPOLOGIES, TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.tasks.interface import TaskDefaults
from acidmpi.tasks.recipe import learning_rate, total_gradients

T = TypeVar("T")

LARGEST_TOTAL = 2**53
"""Totals travel as float64, which is exact up to here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The values of SGD, all of them known."""

    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    epochs: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is done, and with which learning rate when."""

    recipe: Recipe
    total_gradients: int
    """Of all ranks together."""

    average_every: int | None
    """Gradients of all ranks between two evaluations; None: only at the end."""

    checkpoint_every: int | None = None
    """Gradients of all ranks between two checkpoints; None: only when asked to leave."""

    rate: Callable[[float], float]
    """The learning rate at a share of the total, from 0 to 1."""


def resolve(config: TrainConfig, defaults: TaskDefaults) -> TrainConfig:
    """`config` with the task's and the method's own values where it leaves them open."""
    return replace(
        config,
        topology=_first(config.topology, TOPOLOGIES.get(config.method)),
        model=_first(config.model, defaults.model),
        batch_size=_first(config.batch_size, defaults.batch_size),
        lr=_first(config.lr, defaults.lr),
        momentum=_first(config.momentum, defaults.momentum),
        weight_decay=_first(config.weight_decay, defaults.weight_decay),
        epochs=_first(config.epochs, defaults.epochs),
    )


def make_plan(
    config: TrainConfig,
    samples_per_epoch: int,
    size: int,
    decays: Sequence[float] = (0.5, 0.75),
) -> Plan:
    """The plan of a resolved configuration.

    Args:
        config: has passed `resolve`.
        samples_per_epoch: samples in one epoch over all ranks.
        size: number of ranks.
        decays: the task's; where the learning rate falls.

    Raises:
        ConfigError: the work cannot be counted.
    """
    recipe = _recipe(config)
    gradients_per_epoch = samples_per_epoch / recipe.batch_size
    if recipe.epochs * gradients_per_epoch > LARGEST_TOTAL:
        raise ConfigError(
            f"--epochs must give at most 2**53 gradients, got {recipe.epochs:g} epochs "
            f"of {gradients_per_epoch:g}; ask for fewer"
        )

    def rate(progress: float) -> float:
        return learning_rate(
            progress,
            lr=recipe.lr,
            batch_size=recipe.batch_size,
            size=size,
            epochs=recipe.epochs,
            decays=decays,
        )

    return Plan(
        recipe=recipe,
        total_gradients=total_gradients(
            recipe.epochs, samples_per_epoch, recipe.batch_size
        ),
        average_every=_gradients(config.evaluate_every, gradients_per_epoch),
        checkpoint_every=_gradients(config.checkpoint_every, gradients_per_epoch),
        rate=rate,
    )


def _recipe(config: TrainConfig) -> Recipe:
    assert config.batch_size is not None
    assert config.lr is not None
    assert config.momentum is not None
    assert config.weight_decay is not None
    assert config.epochs is not None
    return Recipe(
        batch_size=config.batch_size,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        epochs=config.epochs,
    )


def _gradients(epochs: float | None, gradients_per_epoch: float) -> int | None:
    return None if epochs is None else max(1, math.ceil(epochs * gradients_per_epoch))


def _first(given: T | None, default: T) -> T:
    return default if given is None else given
