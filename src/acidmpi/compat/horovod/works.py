"""Collective operations on tensors, as generators of MPI requests.

Each compares with the other ranks what it is about to do, sends, and returns its result.
A tensor is read when its turn comes, so it must not change until the operation has ended.
What keeps one rank from beginning is an error of all: see `operations.told`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from numbers import Real
from operator import index
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acidmpi.compat.horovod.basics import ReduceOp
from acidmpi.compat.operations import Work, agreed, told
from acidmpi.compat.session import Session
from acidmpi.compat.tensors import (
    check_plain,
    data,
    from_data,
    like,
    numbers,
    row_bytes,
)
from acidmpi.errors import ConfigError
from acidmpi.mpi.world import (
    Operator,
    start_broadcast_from,
    start_reduction,
    start_uneven_exchange,
    start_uneven_gather,
)

Array = NDArray[Any]
Splits = Sequence[int] | Tensor | None
Arguments = ParamSpec("Arguments")
Making = Callable[Concatenate[Session, str, Arguments], Work]

OPERATORS: dict[ReduceOp, Operator] = {
    ReduceOp.Average: "sum",
    ReduceOp.Sum: "sum",
    ReduceOp.Min: "min",
    ReduceOp.Max: "max",
    ReduceOp.Product: "product",
}


def _telling(make: Making[Arguments]) -> Making[Arguments]:
    @wraps(make)
    def telling(
        session: Session, what: str, /, *rest: Arguments.args, **named: Arguments.kwargs
    ) -> Work:
        work = make(session, what, *rest, **named)
        return told(session.operations.comm, what, work, session.seconds)

    return telling


@_telling
def reduced(
    session: Session,
    what: str,
    tensor: Tensor,
    op: ReduceOp,
    scales: tuple[float, float],
) -> Work:
    """`tensor` reduced over ranks, multiplied by scales before and after."""
    check_plain(what, tensor)
    before, after = (factor(what, scale) for scale in scales)
    if tensor.is_complex() and op in (ReduceOp.Min, ReduceOp.Max):
        raise ConfigError(
            f"{what} with {op.name} needs numbers that have an order, got "
            f"{tensor.dtype}; reduce tensor.abs() or torch.view_as_real(tensor)"
        )
    mine = scaled(numbers(tensor), before)
    result = np.empty_like(mine)
    yield from _agreed(session, f"{what} of {kind(tensor)}, {op.name}, {before, after}")
    yield start_reduction(session.operations.comm, mine, result, OPERATORS[op])
    if op is ReduceOp.Average:
        result = divided(result, session.size)
    return like(scaled(result, after), tensor)


@_telling
def gathered(session: Session, what: str, tensor: Tensor) -> Work:
    """Everyone's `tensor`, one after the other along the first dimension."""
    check_plain(what, tensor)
    if tensor.dim() == 0:
        raise ConfigError(
            f"{what} needs a tensor with a first dimension, got a scalar; reshape it: "
            "tensor.reshape(1)"
        )
    mine = data(tensor)
    rows = yield from _agreed(session, f"{what} of {row_kind(tensor)}", len(tensor))
    counts = [int(n) * row_bytes(tensor) for n in rows]
    result = np.empty(sum(counts), np.uint8)
    comm = session.operations.comm
    yield start_uneven_gather(comm, mine, result, counts)
    return from_data(result, tensor, int(rows.sum()))


@_telling
def spread(session: Session, what: str, tensor: Tensor, root: int) -> Work:
    """Rank `root`'s `tensor`."""
    check_plain(what, tensor)
    root = root_number(what, root, session.size)
    bytes_ = data(tensor)
    yield from _agreed(session, f"{what} of {kind(tensor)} from rank {root}")
    yield start_broadcast_from(session.operations.comm, bytes_, root)
    return from_data(bytes_, tensor)


@_telling
def exchanged(session: Session, what: str, tensor: Tensor, splits: Splits) -> Work:
    """Slices of everyone's `tensor` meant for this rank, and their lengths."""
    check_plain(what, tensor)
    lengths = split_lengths(tensor, splits, session.size)
    mine = data(tensor)
    yield from _agreed(session, f"{what} of {row_kind(tensor)}")
    comm, width = session.operations.comm, row_bytes(tensor)
    sent = np.array(lengths, np.int64)
    received = np.empty_like(sent)
    eight = [8] * session.size
    yield start_uneven_exchange(
        comm, sent.view(np.uint8), eight, received.view(np.uint8), eight
    )
    result = np.empty(int(received.sum()) * width, np.uint8)
    yield start_uneven_exchange(
        comm,
        mine,
        [n * width for n in lengths],
        result,
        [int(n) * width for n in received],
    )
    output = from_data(result, tensor, int(received.sum()))
    return output, torch.from_numpy(received.astype(np.int32))


def met(session: Session) -> Work:
    """Return when every rank has called it."""
    yield from _agreed(session, "barrier")


def into(work: Work, tensor: Tensor) -> Work:
    """Write what `work` returns into `tensor`, and return that."""
    values = yield from work
    with torch.no_grad():
        tensor.copy_(values)
    return tensor


def part_of(whole: Tensor, session: Session) -> Tensor:
    """This rank's part of `whole` along the first dimension."""
    if whole.dim() == 0:
        raise ConfigError(
            "reducescatter needs a tensor with a first dimension, got a scalar; use "
            "allreduce"
        )
    return whole.tensor_split(session.size)[session.rank].clone()


def counted(session: Session, what: str, count: int) -> Work:
    """Return when every rank has come with a group of so many tensors."""
    yield from _agreed(session, f"{what} of {count} tensors")


def all_of(session: Session, what: str, works: Sequence[Work]) -> Work:
    """One after the other, on all ranks as many; returns the list of their results."""
    yield from counted(session, what, len(works))
    results = []
    for work in works:
        results.append((yield from work))  # noqa: PERF401 - a comprehension cannot
    return results


def several(what: str, tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors of a group.

    Raises:
        ConfigError: it is no group.
    """
    if not isinstance(tensors, Iterable):
        raise ConfigError(
            f"{what} needs a list of tensors, got {type(tensors).__name__} {tensors!r}"
        )
    return list(tensors)


def factor(what: str, scale: Any) -> Any:
    """A prescale_factor or postscale_factor as a number.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(scale, Real):
        return scale
    if not hasattr(scale, "__float__"):
        raise ConfigError(
            f"prescale_factor and postscale_factor of {what} must be numbers, got "
            f"{scale!r}; 1.0 leaves values as they are"
        )
    return float(scale)


def root_number(what: str, root: Any, size: int) -> int:
    """`root`, if it is a rank.

    Raises:
        ConfigError: it is none.
    """
    if not hasattr(root, "__index__") or not 0 <= index(root) < size:
        raise ConfigError(
            f"root_rank of {what} must be in [0, {size}), got {root!r}; name a rank that "
            "exists"
        )
    return index(root)


def scaled(array: Array, factor: float) -> Array:
    """`array` times `factor` in its own type; integers are cut off towards zero."""
    return array if factor == 1.0 else (array * factor).astype(array.dtype)


def divided(total: Array, count: int) -> Array:
    """`total / count` in its own type; integers are cut off towards zero, and exact."""
    if total.dtype.kind not in "iu":
        return (total / count).astype(total.dtype)
    wide = total if total.itemsize == 8 else total.astype(np.int64)
    below = wide // count
    mean: Array = below + ((below < 0) & (wide % count != 0))
    return mean.astype(total.dtype)


def kind(tensor: Tensor) -> str:
    """Type and shape, which must be the same on all ranks."""
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def row_kind(tensor: Tensor) -> str:
    """Type and shape, the first dimension left open."""
    return f"{tensor.dtype} (…, {', '.join(map(str, tensor.shape[1:]))})"


def split_lengths(tensor: Tensor, splits: Splits, size: int) -> list[int]:
    """How many entries of the first dimension go to each rank.

    Raises:
        ConfigError: they are not one for each rank or do not add up.
    """
    length = len(tensor) if tensor.dim() else 0
    if splits is None:
        if tensor.dim() == 0 or length % size:
            raise ConfigError(
                f"the first dimension must be a multiple of the {size} ranks, got shape "
                f"{tuple(tensor.shape)}; say with splits= how it is divided"
            )
        return [length // size] * size
    try:
        lengths = [index(n) for n in splits]
    except TypeError as error:
        raise ConfigError(
            f"splits must be {size} whole numbers, one for each rank, got {splits!r}"
        ) from error
    if len(lengths) != size or min(lengths) < 0 or sum(lengths) != length:
        raise ConfigError(
            f"splits must be {size} lengths that add up to {length}, the first "
            f"dimension, got {lengths}; give one for each rank"
        )
    return lengths


def _agreed(session: Session, what: str, number: int = 0) -> Work:
    return (yield from agreed(session.operations.comm, what, number, session.seconds))
