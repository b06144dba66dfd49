"""Ranks that step together, in virtual seconds: what waiting and collectives cost them.

Gradient times are drawn rank by rank; a collective takes what `plan_times` computes.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from acidmpi.simulate.network import GradientTimes, Link
from acidmpi.simulate.plan_times import exposed_seconds, sum_seconds
from acidmpi.simulate.protocol import Floats, Learner

Together = Literal["allreduce", "localsgd", "gossip"]


class Costs(NamedTuple):
    """What decides how long a step takes."""

    times: GradientTimes
    link: Link
    message_bytes: float
    buckets: int = 1
    local_steps: int = 8


class Look(NamedTuple):
    """All ranks after some steps."""

    seconds: float
    gradients: int
    mean: Floats
    consensus_distance: float


def run_together(
    method: Together,
    start: Floats,
    learner: Learner,
    costs: Costs,
    steps: int,
    every: int,
    seed: int,
) -> list[Look]:
    """Let ranks take `steps` steps.

    Args:
        method: allreduce averages updates in each step, localsgd parameters now and
            then, gossip with the rank 2^k before, k going round.
        start: x of each rank, a row each; not changed.
        learner: what they learn.
        costs: of gradients and of the network.
        steps: of each rank.
        every: steps between two looks.
        seed: of the gradients' times.
    """
    chance = np.random.default_rng([seed, len(start), 3])
    x, ready = start.copy(), np.zeros(len(start))
    looks = []
    for step in range(1, steps + 1):
        durations = np.array([costs.times.draw(r, chance) for r in range(len(x))])
        updates = np.stack([learner.update(r, row) for r, row in enumerate(x)])
        ready += durations
        x, ready = _AFTER[method](x, updates, ready, durations, costs, step)
        if step % every == 0 or step == steps:
            looks.append(_look(x, ready, step))
    return looks


def _allreduce(
    x: Floats, updates: Floats, ready: Floats, durations: Floats, costs: Costs, _: int
) -> tuple[Floats, Floats]:
    each = costs.message_bytes / costs.buckets
    whole = costs.buckets * sum_seconds(len(x), each, costs.link)
    slowest = int(ready.argmax())
    exposed = exposed_seconds(float(durations[slowest]), whole, costs.buckets)
    return x + updates.mean(axis=0), np.full_like(ready, ready[slowest] + exposed)


def _localsgd(
    x: Floats, updates: Floats, ready: Floats, _: Floats, costs: Costs, step: int
) -> tuple[Floats, Floats]:
    x = x + updates
    if step % costs.local_steps:
        return x, ready
    took = sum_seconds(len(x), costs.message_bytes, costs.link)
    return np.tile(x.mean(axis=0), (len(x), 1)), np.full_like(ready, ready.max() + took)


def _gossip(
    x: Floats,
    updates: Floats,
    ready: Floats,
    durations: Floats,
    costs: Costs,
    step: int,
) -> tuple[Floats, Floats]:
    """Parameters travel while the gradient at them is computed."""
    before = 1 << ((step - 1) % max(1, (len(x) - 1).bit_length()))
    took = (
        costs.message_bytes / costs.link.bytes_per_second + costs.link.latency_seconds
    )
    began = ready - durations
    heard = np.maximum(began, np.roll(began, before)) + took
    mixed = 0.5 * (x + np.roll(x, before, axis=0))
    return mixed + updates, np.maximum(ready, heard)


_AFTER = {"allreduce": _allreduce, "localsgd": _localsgd, "gossip": _gossip}


def _look(x: Floats, ready: Floats, step: int) -> Look:
    mean = x.mean(axis=0)
    distance = float(((x - mean) ** 2).sum(axis=1).mean())
    return Look(float(ready.max()), step * len(x), mean, distance)


def first_below(
    seconds: Sequence[float], losses: Sequence[float], loss: float
) -> float:
    """When `losses` first are at most `loss`, between two looks by a line.

    Infinite if they never are.
    """
    for k, value in enumerate(losses):
        if value <= loss:
            if k == 0:
                return seconds[0]
            share = (losses[k - 1] - loss) / (losses[k - 1] - value)
            return seconds[k - 1] + share * (seconds[k] - seconds[k - 1])
    return float("inf")
