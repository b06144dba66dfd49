"""Which parameters travel together: pure, and the same on every rank.

Gradients become final about in the reverse order of the parameters' registration, so
buckets are made in that order, and one is full as soon as its payload is.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from acidmpi.compression.protocol import Spec
from acidmpi.errors import ConfigError


class Bucket(NamedTuple):
    """Parameters whose gradients travel together; they have one dtype."""

    indices: tuple[int, ...]
    """In the order in which gradients are expected."""


def dense_bytes(spec: Spec) -> int:
    """Bytes of the gradient of a parameter."""
    return math.prod(spec.shape) * spec.dtype.itemsize


def make_buckets(
    specs: Sequence[Spec], payload_bytes: Callable[[int], int], bucket_bytes: int
) -> tuple[Bucket, ...]:
    """Cut the parameters, last registered first, into buckets.

    Compression makes messages smaller but not their latency, so the limit shrinks with
    the payload and a model has about as many buckets whatever the compressor: a bucket is
    full before its payload exceeds `bucket_bytes` · payload of all / bytes of all.

    Args:
        specs: all parameters, in the order of registration.
        payload_bytes: of parameter number `index`, in the phase at hand.
        bucket_bytes: limit of a bucket's gradients before compression; a larger
            parameter has a bucket of its own, and with 0 each has.

    Raises:
        ConfigError: `bucket_bytes` is negative.
    """
    if bucket_bytes < 0:
        raise ConfigError(
            f"bucket_bytes must be ≥ 0 (0: one bucket per parameter), got {bucket_bytes}"
        )
    payloads = [payload_bytes(index) for index in range(len(specs))]
    dense = sum(dense_bytes(spec) for spec in specs)
    limit = bucket_bytes * sum(payloads) / max(dense, 1)
    cuts: list[list[int]] = []
    held = 0
    for index in reversed(range(len(specs))):
        if not cuts or not _fits(specs, cuts[-1], index, held + payloads[index], limit):
            cuts.append([])
            held = 0
        cuts[-1].append(index)
        held += payloads[index]
    return tuple(Bucket(tuple(indices)) for indices in cuts)


def _fits(
    specs: Sequence[Spec], indices: list[int], index: int, payload: int, limit: float
) -> bool:
    """Whether parameter `index` may join a bucket that then has so much payload."""
    return specs[indices[0]].dtype == specs[index].dtype and 0 < limit >= payload
