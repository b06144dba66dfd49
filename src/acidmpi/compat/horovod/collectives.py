"""Collective operations with a handle, and those in place.

All are collective: every rank calls the same ones in the same order. `name` appears in
errors and must be the same on all ranks; it does not match operations with each other.
Progress is made whenever one of these functions is called, not in the background.
"""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from acidmpi.compat.horovod import works
from acidmpi.compat.horovod.basics import ReduceOp, session
from acidmpi.compat.horovod.handles import (
    chosen_operator,
    label,
    start,
    synchronize,
)
from acidmpi.compat.horovod.process_sets import (
    ProcessSet,
    check_global,
    global_process_set,
)
from acidmpi.compat.operations import Operation
from acidmpi.compat.unsupported import UnsupportedError


def allreduce_async(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Begin to reduce `tensor` over all ranks; the result is a new tensor.

    Args:
        tensor: of the same shape and type on all ranks.
        average: deprecated; True is op=Average, False is op=Sum.
        name: what errors call it.
        op: Average (the default), Sum, Min, Max or Product.
        prescale_factor: multiplies before the reduction.
        postscale_factor: multiplies after it.
        process_set: must be `global_process_set`.

    Returns:
        A handle for `poll` and `synchronize`.

    Raises:
        UnsupportedError: op=Adasum, or another process set.
    """
    check_global(process_set)
    what = label("allreduce", name)
    scales = (prescale_factor, postscale_factor)
    chosen = chosen_operator(op, average)
    return start(what, works.reduced(session(), what, tensor, chosen, scales))


def allreduce_async_(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Like `allreduce_async`, but the result replaces `tensor`."""
    check_global(process_set)
    what = label("allreduce", name)
    scales = (prescale_factor, postscale_factor)
    chosen = chosen_operator(op, average)
    work = works.reduced(session(), what, tensor, chosen, scales)
    return start(what, works.into(work, tensor))


def allreduce_(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Reduce `tensor` in place; see `allreduce_async`. Returns `tensor`."""
    result: Tensor = synchronize(
        allreduce_async_(
            tensor, average, name, op, prescale_factor, postscale_factor, process_set
        )
    )
    return result


def grouped_allreduce_async(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Like `allreduce_async` for each of `tensors`; the result is a list."""
    check_global(process_set)
    what = label("grouped_allreduce", name)
    scales = (prescale_factor, postscale_factor)
    chosen = chosen_operator(op, average)
    group = works.several(what, tensors)
    each = [works.reduced(session(), what, t, chosen, scales) for t in group]
    return start(what, works.all_of(session(), what, each))


def grouped_allreduce_async_(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Like `grouped_allreduce_async`, but in place."""
    check_global(process_set)
    what = label("grouped_allreduce", name)
    scales = (prescale_factor, postscale_factor)
    chosen = chosen_operator(op, average)
    each = [
        works.into(works.reduced(session(), what, t, chosen, scales), t)
        for t in works.several(what, tensors)
    ]
    return start(what, works.all_of(session(), what, each))


def grouped_allreduce_(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """Reduce each of `tensors` in place; see `allreduce_async`. Returns them."""
    result: list[Tensor] = synchronize(
        grouped_allreduce_async_(
            tensors, average, name, op, prescale_factor, postscale_factor, process_set
        )
    )
    return result


def allgather_async(
    tensor: Tensor,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Begin to chain everyone's `tensor` along the first dimension, in order of rank.

    First dimensions may differ.

    Returns:
        A handle; the result is a new tensor.
    """
    check_global(process_set)
    what = label("allgather", name)
    return start(what, works.gathered(session(), what, tensor))


def grouped_allgather_async(
    tensors: Sequence[Tensor],
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Like `allgather_async` for each of `tensors`; the result is a list."""
    check_global(process_set)
    what = label("grouped_allgather", name)
    group = works.several(what, tensors)
    each = [works.gathered(session(), what, tensor) for tensor in group]
    return start(what, works.all_of(session(), what, each))


def broadcast_async(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Begin to send rank `root_rank`'s `tensor` to all; the result is a new tensor."""
    check_global(process_set)
    what = label("broadcast", name)
    return start(what, works.spread(session(), what, tensor, root_rank))


def broadcast_async_(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Like `broadcast_async`, but the result replaces `tensor`."""
    check_global(process_set)
    what = label("broadcast", name)
    work = works.spread(session(), what, tensor, root_rank)
    return start(what, works.into(work, tensor))


def broadcast_(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Replace `tensor` by rank `root_rank`'s. Returns `tensor`."""
    result: Tensor = synchronize(broadcast_async_(tensor, root_rank, name, process_set))
    return result


def alltoall_async(
    tensor: Tensor,
    splits: works.Splits = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Operation:
    """Begin to send slices of `tensor` along its first dimension to all ranks.

    Args:
        tensor: what is divided.
        splits: how many entries go to each rank; equal parts, if it is None.
        name: what errors call it.
        process_set: must be `global_process_set`.

    Returns:
        A handle; the result is (slices received, how many entries of each rank).
    """
    check_global(process_set)
    what = label("alltoall", name)
    return start(what, works.exchanged(session(), what, tensor, splits))


def sparse_allreduce_async(
    tensor: Tensor,
    name: str,
    op: ReduceOp,
    process_set: ProcessSet = global_process_set,
) -> NoReturn:
    """Raise: there are no sparse reductions here.

    Raises:
        UnsupportedError: always.
    """
    del tensor, name, op, process_set
    raise UnsupportedError("sparse_allreduce_async()", "call to_dense() on it first")
