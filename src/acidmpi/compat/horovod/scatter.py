"""Reductions of which each rank keeps its part.

Parts go along the first dimension and are equal, but for one entry more on the first ranks
if there is a remainder. All of a tensor travels to all ranks, so this is no faster than
`allreduce`.
"""

from collections.abc import Sequence

from torch import Tensor

from acidmpi.compat.horovod import works
from acidmpi.compat.horovod.basics import Average, ReduceOp, session
from acidmpi.compat.horovod.compression import Compression, Compressor
from acidmpi.compat.horovod.gradients import allreduce
from acidmpi.compat.horovod.handles import (
    begin_group,
    checked_operator,
    label,
    start,
)
from acidmpi.compat.horovod.process_sets import (
    ProcessSet,
    check_global,
    global_process_set,
)
from acidmpi.compat.operations import Operation, Work


def reducescatter(
    tensor: Tensor,
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: ReduceOp = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Tensor:
    """This rank's part of the reduction of `tensor`; arguments as for `allreduce`."""
    whole = allreduce(
        tensor,
        name=name,
        compression=compression,
        op=checked_operator(op),
        prescale_factor=prescale_factor,
        postscale_factor=postscale_factor,
        process_set=process_set,
    )
    return works.part_of(whole, session())


def grouped_reducescatter(
    tensors: Sequence[Tensor],
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: ReduceOp = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> list[Tensor]:
    """`reducescatter` of each of `tensors`; returns a list."""
    scales = (prescale_factor, postscale_factor)
    check_global(process_set)
    group = works.several(label("grouped_reducescatter", name), tensors)
    begin_group("grouped_reducescatter", name, len(group))
    return [
        reducescatter(tensor, name, compression, op, process_set, *scales)
        for tensor in group
    ]


def reducescatter_async(
    tensor: Tensor,
    name: str | None = None,
    op: ReduceOp = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Operation:
    """Begin a `reducescatter`; returns a handle."""
    check_global(process_set)
    what = label("reducescatter", name)
    return start(what, _part(what, tensor, op, (prescale_factor, postscale_factor)))


def grouped_reducescatter_async(
    tensors: Sequence[Tensor],
    name: str | None = None,
    op: ReduceOp = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Operation:
    """Begin a `grouped_reducescatter`; returns a handle."""
    check_global(process_set)
    what = label("grouped_reducescatter", name)
    scales = (prescale_factor, postscale_factor)
    each = [_part(what, tensor, op, scales) for tensor in works.several(what, tensors)]
    return start(what, works.all_of(session(), what, each))


def _part(what: str, tensor: Tensor, op: ReduceOp, scales: tuple[float, float]) -> Work:
    here = session()
    chosen = checked_operator(op)
    whole = yield from works.reduced(here, what, tensor, chosen, scales)
    return works.part_of(whole, here)
