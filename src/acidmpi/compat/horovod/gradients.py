"""Collective operations that gradients flow through, and the same on several tensors.

The backward passes are Horovod's: that of `allgather` and `broadcast` averages over ranks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acidmpi.compat.horovod.basics import ReduceOp, rank
from acidmpi.compat.horovod.collectives import (
    allgather_async,
    allreduce_async,
    alltoall_async,
    broadcast_async,
)
from acidmpi.compat.horovod.compression import Compression, Compressor, by_tensor
from acidmpi.compat.horovod.handles import (
    begin_group,
    chosen_operator,
    label,
    synchronize,
)
from acidmpi.compat.horovod.process_sets import (
    ProcessSet,
    check_global,
    global_process_set,
)
from acidmpi.compat.horovod.works import Splits, several


def allreduce(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Reduce `tensor` over all ranks into a new tensor; see `allreduce_async`.

    Args:
        tensor: of the same shape and type on all ranks.
        average: deprecated; True is op=Average, False is op=Sum.
        name: what errors call it.
        compression: Compression.none or Compression.fp16.
        op: Average (the default), Sum, Min, Max or Product.
        prescale_factor: multiplies before the reduction.
        postscale_factor: multiplies after it.
        process_set: must be `global_process_set`.
    """
    check_global(process_set)
    chosen = chosen_operator(op, average)
    way = by_tensor(compression)
    small, context = way.compress(tensor)
    scales = (prescale_factor, postscale_factor)
    result: Tensor = way.decompress(
        _apply(_Reduce, small, name, chosen, scales), context
    )
    return result


def grouped_allreduce(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: ReduceOp | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """`allreduce` of each of `tensors`; returns a list."""
    chosen = chosen_operator(op, average)
    check_global(process_set)
    group = several(label("grouped_allreduce", name), tensors)
    begin_group("grouped_allreduce", name, len(group))
    return [
        allreduce(
            tensor,
            name=name,
            compression=compression,
            op=chosen,
            prescale_factor=prescale_factor,
            postscale_factor=postscale_factor,
            process_set=process_set,
        )
        for tensor in group
    ]


def allgather(
    tensor: Tensor,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Chain everyone's `tensor` along the first dimension; see `allgather_async`."""
    check_global(process_set)
    result: Tensor = _apply(_Gather, tensor, name)
    return result


def grouped_allgather(
    tensors: Sequence[Tensor],
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """`allgather` of each of `tensors`; returns a list."""
    check_global(process_set)
    group = several(label("grouped_allgather", name), tensors)
    begin_group("grouped_allgather", name, len(group))
    return [allgather(tensor, name, process_set) for tensor in group]


def broadcast(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Rank `root_rank`'s `tensor`, as a new tensor."""
    check_global(process_set)
    result: Tensor = _apply(_Broadcast, tensor, root_rank, name)
    return result


def alltoall(
    tensor: Tensor,
    splits: Splits = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor | tuple[Tensor, Tensor]:
    """Send slices of `tensor` to all ranks; see `alltoall_async`.

    Returns:
        The slices received; with `splits`, also how many entries came from each rank.
    """
    check_global(process_set)
    output, received = _apply(_Exchange, tensor, splits, name)
    return output if splits is None else (output, received)


def _apply(function: Any, *arguments: Any) -> Any:
    return function.apply(*arguments)


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tensor: Tensor,
        name: str | None,
        op: ReduceOp,
        scales: tuple[float, float],
    ) -> Tensor:
        ctx.arguments = (name, op, *scales)
        result: Tensor = synchronize(allreduce_async(tensor, None, name, op, *scales))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        mean = synchronize(allreduce_async(gradients[0], None, *ctx.arguments))
        return mean, None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, name: str | None) -> Tensor:
        result: Tensor = synchronize(allgather_async(tensor, name))
        ctx.length = len(tensor)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        mean = synchronize(allreduce_async(gradients[0]))
        lengths = synchronize(allgather_async(torch.tensor([ctx.length])))
        first = int(lengths[: rank()].sum())
        return mean[first : first + ctx.length], None


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, root_rank: int, name: str | None) -> Tensor:
        ctx.root_rank = root_rank
        result: Tensor = synchronize(broadcast_async(tensor, root_rank, name))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        mean = synchronize(allreduce_async(gradients[0]))
        mine = mean if rank() == ctx.root_rank else torch.zeros_like(mean)
        return mine, None, None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, splits: Splits, name: str | None
    ) -> tuple[Tensor, Tensor]:
        output, received = synchronize(alltoall_async(tensor, splits, name))
        ctx.received = received
        ctx.mark_non_differentiable(received)
        return output, received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        mine, _ = synchronize(alltoall_async(gradients[0], ctx.received))
        return mine, None, None
