"""Error feedback: what a message left out is owed, and added to the next gradient.

    input = gradient + owed;   owed' = input - applied

where `applied` is what the message says when it is decoded. Karimireddy et al., "Error
feedback fixes SignSGD and other gradient compression schemes" (2019). The residual is in
units of the gradient, so a change of the learning rate does not rescale what is owed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from acidmpi.arrays.accelerator import beside, store, to_host
from acidmpi.arrays.flat import wide_dtype
from acidmpi.compression.packing import address, pack
from acidmpi.compression.protocol import Array, Place, Spec, State
from acidmpi.errors import ConfigError


class Residuals:
    """What one rank owes, by parameter; zeros at first.

    Kept in float32 (float64 for float64 parameters). The residuals of a bucket are
    moved next to each other when the bucket is first asked for, and stay there: later
    steps add and subtract in one piece, without copies. They begin in host memory, and
    follow the gradients to where those are.

    Args:
        specs: the parameters.
        kept: the indices of those that can owe something; None: all. The residuals of
            others have no elements.
    """

    def __init__(
        self, specs: Sequence[Spec], kept: Collection[int] | None = None
    ) -> None:
        self.kept = frozenset(range(len(specs)) if kept is None else kept)
        self._arrays: list[Array] = [
            np.zeros(size_of(spec) if index in self.kept else 0, wide_dtype(spec.dtype))
            for index, spec in enumerate(specs)
        ]

    def follow(self, indices: Sequence[int], gradient: Array) -> None:
        """Keep the residuals of these parameters in arrays of `gradient`'s kind."""
        for index in indices:
            self._arrays[index] = beside(self._arrays[index], gradient)

    def block(self, indices: Sequence[int]) -> Array:
        """The residuals of these parameters as one array, to be changed in place."""
        pieces = [self._arrays[index] for index in indices]
        packed = pack(pieces)
        first = next((piece for piece in pieces if piece.size), packed)
        if address(packed) != address(first):
            self._move(indices, packed)
        return packed

    def _move(self, indices: Sequence[int], home: Array) -> None:
        start = 0
        for index in indices:
            stop = start + self._arrays[index].size
            self._arrays[index] = home[start:stop]
            start = stop

    def copies(self) -> dict[int, Array]:
        """What each parameter that can owe something does owe, in host memory."""
        return {i: to_host(self._arrays[i]).copy() for i in sorted(self.kept)}

    def replace(self, arrays: Mapping[int, Array]) -> None:
        """Owe these, which lie in host memory, from now on."""
        for index, array in arrays.items():
            store(self._arrays[index], array)


class Memory:
    """All that a reduction keeps from step to step, under names that can be saved.

    Args:
        owner: name of the compressor; a state of another one is refused.
        specs: the parameters.
        place: this rank.
        own: whether messages of this rank leave something owed.
        served: whether this rank owes what it left out of others' sums as well. Such
            residuals are `size` times what the mean lacks, so that they count like the
            others: the mean lacks the sum of all residuals over ranks, divided by `size`.
        kept: the indices of the parameters that can owe something; None: all.
    """

    def __init__(
        self,
        owner: str,
        specs: Sequence[Spec],
        place: Place,
        own: bool,
        served: bool,
        kept: Collection[int] | None = None,
    ) -> None:
        self._owner, self._place = owner, place
        self._sizes = np.array([size_of(spec) for spec in specs], np.int64)
        self.own = Residuals(specs, kept) if own else None
        self.served = Residuals(specs, kept) if served else None

    def follow(self, indices: Sequence[int], gradient: Array) -> None:
        """Keep what is owed on these parameters in arrays of `gradient`'s kind."""
        for _, residuals in self._kinds():
            residuals.follow(indices, gradient)

    def state(self) -> State:
        """Copies of everything, as NumPy arrays wherever the gradients are."""
        state: State = {f"{self._owner}.sizes": self._sizes.copy()}
        for kind, residuals in self._kinds():
            for index, array in residuals.copies().items():
                state[self._key(kind, index)] = array
        return state

    def load(self, states: Sequence[State]) -> None:
        """Take up what all ranks of a run owed; see `protocol.Reduction.load`.

        Raises:
            ConfigError: they are of other parameters or of another compressor.
        """
        for state in states:
            self._check(state)
        if len(states) == self._place.size:
            self._resume(states[self._place.rank])
        else:
            self._share(states)

    def _resume(self, state: State) -> None:
        for kind, residuals in self._kinds():
            residuals.replace(
                {index: state[self._key(kind, index)] for index in residuals.kept}
            )

    def _share(self, states: Sequence[State]) -> None:
        """Everything owed becomes own residuals: sums have new owners now."""
        if self.own is None:
            return
        sums = {index: self._sum(states, index) for index in self.own.kept}
        self.own.replace({k: total / self._place.size for k, total in sums.items()})
        if self.served is not None:
            self.served.replace({k: np.zeros_like(total) for k, total in sums.items()})

    def _sum(self, states: Sequence[State], index: int) -> Array:
        total: Array = np.zeros(self._sizes[index])
        for state in states:
            for kind, _ in self._kinds():
                total += state[self._key(kind, index)]
        return total

    def _key(self, kind: str, index: int) -> str:
        return f"{self._owner}.{kind}.{index}"

    def _kinds(self) -> list[tuple[str, Residuals]]:
        kinds = (("residual", self.own), ("served", self.served))
        return [(name, residuals) for name, residuals in kinds if residuals is not None]

    def _check(self, state: State) -> None:
        mine = _form(self.state())
        if _form(state) != mine or not np.array_equal(
            state[f"{self._owner}.sizes"], self._sizes
        ):
            raise ConfigError(
                f"a state must be of compressor {self._owner!r} and of the same "
                f"{self._sizes.size} parameters, got {_brief(state)}; load it into the "
                "compressor and the model that it was saved from"
            )


def size_of(spec: Spec) -> int:
    """Elements of a parameter."""
    return int(np.prod(spec.shape, dtype=np.int64))


def _form(state: State) -> dict[str, Any]:
    return {name: (array.shape, array.dtype) for name, array in state.items()}


def _brief(state: State) -> str:
    names = [f"{name}{list(array.shape)}" for name, array in state.items()]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "nothing"
