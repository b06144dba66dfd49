"""Compressors that are broken on purpose: each broken promise must be found."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from support.compression_promises import (
    buckets_may_overlap,
    debts_stay_bounded,
    goes_on_where_it_was,
    nothing_is_lost,
    other_size_owes_the_same,
    payload_is_what_travels,
    ranks_end_alike,
    zero_stays_zero,
)

from acidmpi.compression.registry import make

SOUND = {
    "signnorm": make("signnorm"),
    "topk": make("topk", density=0.1),
    "randomk": make("randomk", density=0.1),
    "onebit": make("onebit"),
    "efsign": make("efsign", block=32),
    "qsgd": make("qsgd", block=64),
}


@dataclass(frozen=True)
class Spoilt:
    """A compressor whose reductions are spoilt as soon as they are made."""

    compressor: object
    spoil: Callable
    name: str = "spoilt"

    def start(self, specs, place):
        return self.spoil(self.compressor.start(specs, place), specs, place)


class Wrapped:
    """A reduction with another `reduce`."""

    def __init__(self, reduction, reduce):
        self._reduction, self._reduce = reduction, reduce

    def __getattr__(self, name):
        return getattr(self._reduction, name)

    def reduce(self, indices, gradients, step):
        yield from self._reduce(self._reduction, indices, gradients, step)


def error_of_wrong_sign(reduction, specs, place):
    """memory = input + decoded, as the SignReducer of the PowerSGD paper's code has it."""
    add = reduction._codec.add
    reduction._codec.add = lambda code, out, layout, weight: add(
        code, out, layout, abs(weight)
    )
    return reduction


def residual_from_the_mean(reduction, specs, place):
    """memory = input - mean, which forgets what only this rank had sent."""

    def reduce(inner, indices, gradients, step):
        memory = inner.memory.own.block(indices)
        asked = memory + np.concatenate(gradients)
        yield from inner.reduce(indices, gradients, step)
        inner.memory.own.block(indices)[:] = asked - np.concatenate(gradients) / 2

    return Wrapped(reduction, reduce)


def residual_by_position(reduction, specs, place):
    """What is owed belongs to the place in a bucket, so a new bucket pays another's."""
    block = reduction.memory.own.block
    everything = tuple(range(len(specs)))
    sizes = [int(np.prod(spec.shape)) for spec in specs]

    def by_position(indices):
        return block(everything)[: sum(sizes[index] for index in indices)]

    reduction.memory.own.block = by_position
    return reduction


def chance_by_order(reduction, specs, place):
    """Draws go on from one bucket to the next, instead of being keyed."""
    encode, generator = reduction._codec.encode, np.random.default_rng(place.rank)

    class Moment:
        def own(self):
            return generator

    reduction._codec.encode = lambda rows, valid, moment: encode(rows, valid, Moment())
    return reduction


def drawn_by_rank(reduction, specs, place):
    """Each rank draws coordinates of its own."""
    reduction.place = place._replace(seed=place.rank)
    return reduction


def forgetful(reduction, specs, place):
    """A state in which nothing is owed."""
    state = reduction.state
    reduction.state = lambda: {k: np.zeros_like(v) if "resid" in k else v
                               for k, v in state().items()}  # fmt: skip
    return reduction


def own_share_only(reduction, specs, place):
    """Another number of ranks, and each goes on with the first rank's debts."""
    reduction.load = lambda states: reduction.memory._resume(states[0])
    return reduction


def sums_forgiven(reduction, specs, place):
    """What a description of a sum leaves out is not owed by anyone."""
    reduction.memory.served = None
    return reduction


def own_first(reduction, specs, place):
    """Each rank adds up from its own code on."""
    decoded = reduction._decoded
    reduction._decoded = lambda codes, out, layout: decoded(
        np.roll(codes, -place.rank, axis=0), out, layout
    )
    return reduction


def same_draws_again(reduction, specs, place):
    """Each step draws what the first one drew."""
    draw = reduction._draw
    reduction._draw = lambda layout, moment: draw(layout, moment._replace(step=0))
    return reduction


def half_the_bytes(reduction, specs, place):
    """Bits are counted, bytes travel."""
    count = reduction.payload_bytes
    reduction.payload_bytes = lambda index, phase: count(index, phase) // 2
    return reduction


def zero_counts_as_one(reduction, specs, place):
    """Scales that are never zero."""
    reduction._codec._levels = lambda values: (-1.0, 1.0)
    return reduction


PLANTED = (
    ("signnorm", error_of_wrong_sign, nothing_is_lost),
    ("signnorm", error_of_wrong_sign, debts_stay_bounded),
    ("signnorm", residual_from_the_mean, nothing_is_lost),
    ("topk", residual_by_position, nothing_is_lost),
    ("qsgd", chance_by_order, buckets_may_overlap),
    ("randomk", drawn_by_rank, nothing_is_lost),
    ("randomk", drawn_by_rank, ranks_end_alike),
    ("topk", forgetful, goes_on_where_it_was),
    ("topk", own_share_only, other_size_owes_the_same),
    ("efsign", sums_forgiven, nothing_is_lost),
    ("signnorm", own_first, ranks_end_alike),
    ("randomk", same_draws_again, debts_stay_bounded),
    ("onebit", half_the_bytes, payload_is_what_travels),
    ("signnorm", zero_counts_as_one, zero_stays_zero),
)


@pytest.mark.parametrize(
    ("title", "spoil", "promise"),
    PLANTED,
    ids=[f"{spoil.__name__}-{promise.__name__}" for _, spoil, promise in PLANTED],
)
def test_planted_faults_are_found(title, spoil, promise):
    promise(SOUND[title])
    with pytest.raises(AssertionError):
        promise(Spoilt(SOUND[title], spoil))
