"""What compressors send: the messages of the real ones, recorded on one layer.

A reduction is driven as on a rank, with its own words as everybody's answer, and what it
yields is counted. The layer is square; low-rank factors are smaller, relative to the model,
where layers are larger.
"""

from typing import Any, NamedTuple

import numpy as np

from acidmpi.compression.protocol import (
    AllToAll,
    Gather,
    Mean,
    Message,
    Place,
    Spec,
)
from acidmpi.compression.registry import make
from acidmpi.simulate.network import Link
from acidmpi.simulate.plan_times import (
    Shape,
    gather_seconds,
    scatter_seconds,
    sum_seconds,
)

SIDE = 512
"""Rows and columns of the layer."""

LATE = 6000
"""A step at which every compressor compresses."""


class Sent(NamedTuple):
    """What so many steps send, relative to the number of parameters."""

    messages: tuple[tuple[str, float], ...]
    """Kinds (`Sum`, `Gather`, `AllToAll`) and bytes per parameter, of all phases."""

    phases: int
    """Steps of different kinds, that is how many steps these are."""

    state_bytes: float
    """Kept from step to step, per parameter."""


def sent_by(name: str, size: int) -> Sent:
    """Messages of the compressor `name` among `size` ranks.

    Raises:
        ConfigError: there is no such compressor.
    """
    shape = (SIDE, SIDE)
    reduction = make(name).start([Spec(shape, np.dtype("float32"))], Place(0, size, 0))
    chance = np.random.default_rng(0)
    found: list[tuple[str, float]] = []
    phases = reduction.phases
    for step in range(LATE, LATE + phases):
        gradient = chance.standard_normal(SIDE**2).astype(np.float32)
        work = reduction.reduce([0], [gradient], step)
        reply: Any = None
        while True:
            try:
                message = work.send(reply)
            except StopIteration:
                break
            share = message.array.nbytes / SIDE**2
            found.append((_kind(message), share))
            reply = _reply(message, size)
    kept = sum(np.asarray(value).nbytes for value in reduction.state().values())
    return Sent(tuple(found), phases, kept / SIDE**2)


def reduce_seconds(
    sent: Sent, parameters: int, size: int, link: Link, shape: Shape
) -> float:
    """Mean time of the messages of a step, one after the other."""
    kinds = {"Sum": sum_seconds, "Gather": gather_seconds, "AllToAll": scatter_seconds}
    whole = sum(
        kinds[kind](size, share * parameters, link, shape)
        for kind, share in sent.messages
    )
    return whole / sent.phases


def sent_bytes(sent: Sent, parameters: int, size: int) -> float:
    """Bytes that a rank sends in a step, as the collectives spread them."""
    factors = {
        "Sum": 2 * (size - 1) / size,
        "Gather": size - 1,
        "AllToAll": (size - 1) / size,
    }
    each = sum(factors[kind] * share for kind, share in sent.messages) / sent.phases
    return each * parameters


def _kind(message: Message) -> str:
    """A mean travels as a sum does."""
    return "Sum" if isinstance(message, Mean) else type(message).__name__


def _reply(message: Message, size: int) -> Any:
    if isinstance(message, Gather):
        return np.stack([message.array] * size)
    if isinstance(message, AllToAll):
        return np.stack([message.array[0]] * size)
    return message.array
