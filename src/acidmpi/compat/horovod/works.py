"""Collective operations on tensors, as generators of MPI requests.

Each compares with the other ranks what it is about to do, sends, and returns its result.
A tensor is read when its turn comes, so it must not change until the operation has ended.
"""

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acidmpi.compat.horovod.basics import ReduceOp
from acidmpi.compat.operations import Work, agreed
from acidmpi.compat.session import Session
from acidmpi.compat.tensors import data, from_data, like, numbers, row_bytes
from acidmpi.errors import ConfigError
from acidmpi.mpi.reductions import Request
from acidmpi.mpi.world import (
    Operator,
    start_broadcast_from,
    start_reduction,
    start_uneven_exchange,
    start_uneven_gather,
)

Array = NDArray[Any]
Splits = Sequence[int] | Tensor | None

OPERATORS: dict[ReduceOp, Operator] = {
    ReduceOp.Average: "sum",
    ReduceOp.Sum: "sum",
    ReduceOp.Min: "min",
    ReduceOp.Max: "max",
    ReduceOp.Product: "product",
}


def reduced(
    session: Session,
    what: str,
    tensor: Tensor,
    op: ReduceOp,
    scales: tuple[float, float],
) -> Generator[Request, None, Tensor]:
    """`tensor` reduced over ranks, multiplied by scales before and after."""
    if tensor.is_complex() and op in (ReduceOp.Min, ReduceOp.Max):
        raise ConfigError(
            f"{what} with {op.name} needs numbers that have an order, got "
            f"{tensor.dtype}; reduce tensor.abs() or torch.view_as_real(tensor)"
        )
    yield from _agreed(session, f"{what} of {kind(tensor)}, {op.name}, {scales}")
    mine = scaled(numbers(tensor), scales[0])
    result = np.empty_like(mine)
    yield start_reduction(session.operations.comm, mine, result, OPERATORS[op])
    if op is ReduceOp.Average:
        result = divided(result, session.size)
    return like(scaled(result, scales[1]), tensor)


def gathered(session: Session, what: str, tensor: Tensor) -> Work:
    """Everyone's `tensor`, one after the other along the first dimension."""
    if tensor.dim() == 0:
        raise ConfigError(
            f"{what} needs a tensor with a first dimension, got a scalar; reshape it: "
            "tensor.reshape(1)"
        )
    rows = yield from _agreed(session, f"{what} of {row_kind(tensor)}", len(tensor))
    counts = [int(n) * row_bytes(tensor) for n in rows]
    result = np.empty(sum(counts), np.uint8)
    comm = session.operations.comm
    yield start_uneven_gather(comm, data(tensor), result, counts)
    return from_data(result, tensor, int(rows.sum()))


def spread(session: Session, what: str, tensor: Tensor, root: int) -> Work:
    """Rank `root`'s `tensor`."""
    if not 0 <= root < session.size:
        raise ConfigError(
            f"root_rank of {what} must be in [0, {session.size}), got {root}; name a "
            "rank that exists"
        )
    yield from _agreed(session, f"{what} of {kind(tensor)} from rank {root}")
    bytes_ = data(tensor)
    yield start_broadcast_from(session.operations.comm, bytes_, root)
    return from_data(bytes_, tensor)


def exchanged(session: Session, what: str, tensor: Tensor, splits: Splits) -> Work:
    """Slices of everyone's `tensor` meant for this rank, and their lengths."""
    lengths = split_lengths(tensor, splits, session.size)
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
        data(tensor),
        [n * width for n in lengths],
        result,
        [int(n) * width for n in received],
    )
    output = from_data(result, tensor, int(received.sum()))
    return output, torch.from_numpy(received.astype(np.int32))


def met(session: Session) -> Work:
    """Return when every rank has called it."""
    yield from _agreed(session, "barrier")


def into(work: Generator[Request, None, Tensor], tensor: Tensor) -> Work:
    """Write what `work` returns into `tensor`, and return that."""
    values = yield from work
    with torch.no_grad():
        tensor.copy_(values)
    return tensor


def part_of(whole: Tensor, session: Session) -> Tensor:
    """This rank's part of `whole` along the first dimension."""
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
    lengths = [int(n) for n in splits]
    if len(lengths) != size or min(lengths) < 0 or sum(lengths) != length:
        raise ConfigError(
            f"splits must be {size} lengths that add up to {length}, the first "
            f"dimension, got {lengths}; give one for each rank"
        )
    return lengths


def _agreed(session: Session, what: str, number: int = 0) -> Work:
    return (yield from agreed(session.operations.comm, what, number, session.seconds))
