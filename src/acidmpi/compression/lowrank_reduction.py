"""PowerSGD and ACP-SGD at work: factors kept from step to step, and what each rank owes.

With error feedback, M is the gradient plus what is owed, and P Qᵀ is subtracted from it
in place: the residual is the only array of the model's size. It is local: P and Q there
are what this rank hands to the sum. The last factor is the sum's mean, so all ranks hold
the same, and factors are drawn from the seed, the parameter and the step alone.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from acidmpi.arrays.accelerator import beside, to_host
from acidmpi.compression.feedback import Memory
from acidmpi.compression.lowrank_message import (
    Bucket,
    Cell,
    Parcel,
    sort_out,
    subtract_product,
    write_product,
)
from acidmpi.compression.lowrank_plan import Form, Kind, Plan
from acidmpi.compression.orthogonal import orthogonalise
from acidmpi.compression.packing import widen
from acidmpi.compression.protocol import Array, Mean, Place, Spec, State, Work
from acidmpi.errors import ConfigError

Factors = dict[int, Array]
"""By parameter."""


class LowRankReduction:
    """See `protocol.Reduction`.

    Args:
        plan: the method.
        forms: parameters as matrices.
        specs: the same parameters.
        place: this rank.
    """

    def __init__(
        self, plan: Plan, forms: Sequence[Form], specs: Sequence[Spec], place: Place
    ) -> None:
        self._plan, self._forms, self._place = plan, forms, place
        matrices = [index for index, form in enumerate(forms) if form.width]
        self._memory = Memory(
            plan.name, specs, place, plan.error_feedback, False, matrices
        )
        self._factors: dict[Kind, Factors] = {
            kind: {index: self._draw(index, kind, 0) for index in matrices}
            for kind in (Kind.LEFT, Kind.RIGHT)
        }

    @property
    def phases(self) -> int:
        """See `protocol.Reduction`."""
        return len(self._plan.kinds)

    @property
    def stages(self) -> int:
        """Two where P and Q are made in one step, else one."""
        return 2 if self._factors[Kind.LEFT] and Kind.BOTH in self._plan.kinds else 1

    def phase(self, step: int) -> int:
        """See `protocol.Reduction`."""
        return self._plan.phase(step)

    def payload_bytes(self, index: int, phase: int) -> int:
        """See `protocol.Reduction`."""
        return self._forms[index].message_bytes(self._plan.kinds[phase])

    def reduce(
        self, indices: Sequence[int], gradients: Sequence[Array], step: int
    ) -> Work:
        """See `protocol.Reduction`.

        Raises:
            ConfigError: the gradients are of types that cannot share a message.
        """
        bucket = sort_out(self._forms, indices, gradients)
        kind = self._plan.kinds[self.phase(step)]
        if not bucket.groups:
            return self._loose(bucket)
        if kind is Kind.DENSE:
            return self._dense(bucket, step)
        if kind is Kind.BOTH:
            return self._both(bucket, step)
        return self._half(bucket, kind, map(self._matrix, bucket.cells))

    def _loose(self, bucket: Bucket) -> Work:
        parcel = Parcel(bucket.dtype, bucket.loose, (), bucket.xp)
        yield Mean(parcel.array)
        parcel.deliver()

    def _dense(self, bucket: Bucket, step: int) -> Work:
        """All as it is; the last mean before the cycle gives the first factors."""
        gradients = [cell.gradient for cell in bucket.cells]
        parcel = Parcel(bucket.dtype, gradients + bucket.loose, (), bucket.xp)
        yield Mean(parcel.array)
        parcel.deliver()
        if self._plan.ends_opening(step):
            for cell, mean in zip(bucket.cells, parcel.pieces, strict=False):
                self._iterate(cell, mean.reshape(cell.form.rows, cell.form.columns))

    def _iterate(self, cell: Cell, mean: Array) -> None:
        """P = orth(M Q), Q = Mᵀ P, of the mean M: all ranks know it, nothing is sent."""
        lefts, rights = self._factors[Kind.LEFT], self._factors[Kind.RIGHT]
        (left,) = orthogonalise((mean @ self._factor(Kind.RIGHT, cell))[None])
        lefts[cell.parameter], rights[cell.parameter] = left, mean.T @ left

    def _both(self, bucket: Bucket, step: int) -> Work:
        """P = M Q; then half a step that makes Q with an orthonormal P."""
        if not self._plan.warm_start:
            self._draw_again(bucket, step)
        bases = self._bases(bucket, Kind.RIGHT)
        shapes = bucket.shapes(Kind.LEFT)
        parcel = Parcel(bucket.dtype, bucket.loose, shapes, bucket.xp)
        matrices = []
        for cell, basis, new in zip(bucket.cells, bases, parcel.factors, strict=True):
            matrices.append(self._matrix(cell))
            bucket.xp.matmul(matrices[-1], basis, out=new)
        yield Mean(parcel.array)
        parcel.deliver()
        for cell, mean in zip(bucket.cells, parcel.factors, strict=True):
            self._factors[Kind.LEFT][cell.parameter] = mean
        yield from self._half(bucket._replace(loose=[]), Kind.RIGHT, matrices)

    def _half(self, bucket: Bucket, kind: Kind, matrices: Iterable[Array]) -> Work:
        """P = M Q with an orthonormal Q, or Q = Mᵀ P with an orthonormal P."""
        bases = self._bases(bucket, _OTHER[kind])
        parcel = Parcel(bucket.dtype, bucket.loose, bucket.shapes(kind), bucket.xp)
        for matrix, basis, new in zip(matrices, bases, parcel.factors, strict=True):
            factor_of = matrix if kind is Kind.LEFT else matrix.T
            bucket.xp.matmul(factor_of, basis, out=new)
            self._leave(matrix, {kind: new, _OTHER[kind]: basis})
        yield Mean(parcel.array)
        parcel.deliver()
        for cell, basis, mean in zip(bucket.cells, bases, parcel.factors, strict=True):
            self._finish(cell, {kind: mean, _OTHER[kind]: basis})

    def _bases(self, bucket: Bucket, kind: Kind) -> list[Array]:
        """Orthonormal factors, one for each matrix, made from those of the last step."""
        stacks = (
            bucket.xp.stack([self._factor(kind, cell) for cell in group])
            for group in bucket.groups
        )
        return [basis for stack in stacks for basis in orthogonalise(stack)]

    def _factor(self, kind: Kind, cell: Cell) -> Array:
        """That of the last step; beside the gradient, also if it was just drawn."""
        factor: Array = beside(self._factors[kind][cell.parameter], cell.gradient)
        return factor

    def _matrix(self, cell: Cell) -> Array:
        """The gradient and what is owed, in the array of the latter."""
        values = widen(cell.gradient)
        if self._memory.own is not None:
            self._memory.follow((cell.parameter,), cell.gradient)
            owed = self._memory.own.block((cell.parameter,))
            owed += values
            values = owed
        return values.reshape(cell.form.rows, cell.form.columns)

    def _leave(self, matrix: Array, factors: dict[Kind, Array]) -> None:
        """What the message does not say is owed."""
        if self._memory.own is not None:
            subtract_product(matrix, factors[Kind.LEFT], factors[Kind.RIGHT])

    def _finish(self, cell: Cell, factors: dict[Kind, Array]) -> None:
        """Keep copies of the factors: views would keep whole messages."""
        for kind, factor in factors.items():
            self._factors[kind][cell.parameter] = factor.copy()
        write_product(factors[Kind.LEFT], factors[Kind.RIGHT], cell.gradient)

    def _draw_again(self, bucket: Bucket, step: int) -> None:
        for cell in bucket.cells:
            new = self._draw(cell.parameter, Kind.RIGHT, 1 + step)
            self._factors[Kind.RIGHT][cell.parameter] = new

    def _draw(self, index: int, kind: Kind, round_number: int) -> Array:
        form = self._forms[index]
        key = (self._place.seed % 2**64, index, kind is Kind.LEFT, round_number)
        shape = form.factor_rows(kind), form.width
        drawn = np.random.default_rng(key).standard_normal(shape)
        return drawn.astype(form.dtype)

    def state(self) -> State:
        """See `protocol.Reduction`."""
        return self._memory.state() | {
            _key(kind, index): to_host(factor).copy()
            for kind, factors in self._factors.items()
            for index, factor in factors.items()
        }

    def load(self, states: Sequence[State]) -> None:
        """See `protocol.Reduction`.

        Raises:
            ConfigError: they are of other parameters or of another compressor.
        """
        names = [_key(*entry) for entry in self._entries()]
        for state in states:
            self._check(state)
        self._memory.load([_without(state, names) for state in states])
        same = len(states) == self._place.size
        chosen = states[self._place.rank if same else 0]
        for kind, index in self._entries():
            self._factors[kind][index] = chosen[_key(kind, index)].copy()

    def _entries(self) -> list[tuple[Kind, int]]:
        return [
            (kind, index)
            for kind, factors in self._factors.items()
            for index in factors
        ]

    def _check(self, state: State) -> None:
        for kind, index in self._entries():
            mine = self._factors[kind][index]
            found = state.get(_key(kind, index))
            if found is None or (found.shape, found.dtype) != (mine.shape, mine.dtype):
                got = "none" if found is None else f"{found.dtype}{list(found.shape)}"
                raise ConfigError(
                    f"a state of {self._plan.name!r} must hold a factor "
                    f"{_key(kind, index)} of {mine.dtype}{list(mine.shape)}, got {got}; "
                    "load it into the compressor and the model that it was saved from"
                )


_OTHER = {Kind.LEFT: Kind.RIGHT, Kind.RIGHT: Kind.LEFT}


def _key(kind: Kind, index: int) -> str:
    return f"{kind.name.lower()}.{index}"


def _without(state: State, names: Iterable[str]) -> State:
    dropped = set(names)
    return {name: array for name, array in state.items() if name not in dropped}
