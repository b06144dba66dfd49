"""Which samples a rank sees, and in which order.

Guarantees:
- the order of a rank depends on (seed, rank) only, not on the clock or on other ranks;
- each pass takes every sample of the share once; batches run over the end of a pass;
- the partition into shares is the same on every rank, loses no sample, repeats none and
  leaves no rank empty.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import ConfigError
from acidmpi.tasks.interface import State

Indices = NDArray[np.intp]


class Purpose(IntEnum):
    """What a random stream is for; streams of different purposes are independent."""

    ORDER = 0
    AUGMENT = 1
    PARTITION = 2
    SUBSET = 3
    OPTIMUM = 4
    NOISE = 5


def generator_for(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """The random stream of `purpose`, of one rank if `key` names it."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))
    return np.random.default_rng(sequence)


class ShuffledBatches:
    """Endless batches of indices, shuffled anew in each pass.

    Args:
        indices: the samples that this rank holds.
        batch_size: indices in a batch; may exceed the number of samples.
        generator: where the order comes from.
    """

    def __init__(
        self, indices: Indices, batch_size: int, generator: np.random.Generator
    ) -> None:
        self._indices = indices
        self._batch_size = batch_size
        self._generator = generator
        self._start_pass()

    def _start_pass(self) -> None:
        # The state before the shuffle is all that `restore` needs to repeat it.
        self._before: State = dict(self._generator.bit_generator.state)
        self._order = self._generator.permutation(self._indices)
        self._position = 0

    def take(self) -> Indices:
        """The next batch."""
        parts = [self._take_up_to(self._batch_size)]
        missing = self._batch_size - len(parts[0])
        while missing:
            parts.append(self._take_up_to(missing))
            missing -= len(parts[-1])
        return np.concatenate(parts)

    def _take_up_to(self, count: int) -> Indices:
        if self._position >= len(self._order):
            self._start_pass()
        part = self._order[self._position : self._position + count]
        self._position += len(part)
        return part

    def state(self) -> State:
        """The position in the stream."""
        return {"generator": self._before, "position": self._position}

    def restore(self, state: State) -> None:
        """Go on from `state`, which a stream over the same samples gave."""
        self._generator.bit_generator.state = state["generator"]
        self._start_pass()
        self._position = int(state["position"])


def dirichlet_partition(
    labels: NDArray[np.integer], size: int, concentration: float, seed: int
) -> list[Indices]:
    """Split samples into `size` shares whose mix of labels differs.

    The proportions of each label are drawn from a symmetric Dirichlet distribution:
    the smaller the concentration, the fewer labels a rank holds. A share that would be
    empty gets one sample of the largest.

    Args:
        labels: one per sample.
        size: number of shares.
        concentration: parameter of the distribution, positive.
        seed: fixes the partition.
    """
    if size > len(labels):
        raise ConfigError(
            f"every rank needs a sample of its own, got {size} ranks for {len(labels)} "
            "samples; use fewer ranks or leave out `dirichlet`"
        )
    generator = generator_for(seed, Purpose.PARTITION)
    deals = [
        _deal(np.flatnonzero(labels == label), size, concentration, generator)
        for label in np.unique(labels)
    ]
    shares = [np.concatenate(parts) for parts in zip(*deals, strict=True)]
    return _without_empty(shares)


def _deal(
    members: Indices, size: int, concentration: float, generator: np.random.Generator
) -> list[Indices]:
    proportions = generator.dirichlet(np.full(size, concentration))
    cuts = np.rint(np.cumsum(proportions)[:-1] * len(members)).astype(np.intp)
    return np.split(generator.permutation(members), cuts)


def _without_empty(shares: list[Indices]) -> list[Indices]:
    for rank, share in enumerate(shares):
        if len(share) == 0:
            largest = max(range(len(shares)), key=lambda other: len(shares[other]))
            shares[rank] = shares[largest][-1:]
            shares[largest] = shares[largest][:-1]
    return shares
