"""The end of a run: one global average, and how far apart the ranks were before it.

Collective over all ranks, called by the compute loop after the communication loop has
ended. Messages are blocks of a bounded size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import store, to_host
from acidmpi.arrays.precision import narrow, widen
from acidmpi.mpi.collectives import check_same, complete
from acidmpi.mpi.reductions import Comm, start_broadcast, start_sum
from acidmpi.worker.state import RankState

Array = NDArray[Any]


@dataclass(frozen=True)
class Spread:
    """What was found before the final average."""

    consensus_distance: float
    """mean over ranks of ‖x_i − x̄‖², x̄ the mean of the x_i."""

    rms: float
    """Root mean square of all x."""


def average_state(comm: Comm, state: RankState, seconds: float) -> Spread:
    """Set x and x̃ of every rank to the mean of (x + x̃)/2 over all.

    Args:
        comm: the ranks.
        state: this rank's parameters.
        seconds: deadline of each message.

    Raises:
        DeadlineExceeded: a rank does not take part.
    """
    state.flush()
    sums = np.zeros(3)
    for chunk in state.blocks:
        x, half = state.read(chunk), state.read_half(chunk)
        wide = widen(x).astype(np.float64)
        away = wide - mean(comm, wide, seconds)
        sums += np.array([away @ away, wide @ wide, x.size])
        state.write(chunk, narrow(mean(comm, widen(half), seconds), x.dtype))
    state.restart()
    return spread_of(mean(comm, sums, seconds))


def spread_of(means: Array) -> Spread:
    """From the means over ranks of ‖x − x̄‖², ‖x‖² and the number of elements."""
    distance, square, count = means
    return Spread(float(distance), float(np.sqrt(square / max(count, 1.0))))


def check_shapes(comm: Comm, arrays: Sequence[Array], seconds: float) -> None:
    """See that ranks still agree in buffers, which a model may replace as it runs.

    Raises:
        DisagreementError: they do not.
    """
    told = [f"{array.dtype} {array.shape}" for array in arrays]
    check_same(comm, {f"buffer {k} at the end": t for k, t in enumerate(told)}, seconds)


def average_arrays(comm: Comm, arrays: Sequence[Array], seconds: float) -> None:
    """Replace each array, of any shape, by its mean over the ranks.

    Raises:
        DisagreementError: ranks differ in number, types or shapes.
    """
    check_shapes(comm, arrays, seconds)
    for array in arrays:
        flat = np.ascontiguousarray(to_host(array)).reshape(-1)
        result = mean(comm, widen(flat), seconds)
        store(array, narrow(result, array.dtype).reshape(array.shape))


def broadcast_arrays(comm: Comm, arrays: Sequence[Array], seconds: float) -> None:
    """Replace each array, of any shape and type, by rank 0's."""
    for array in arrays:
        flat = np.ascontiguousarray(to_host(array)).reshape(-1)
        request = start_broadcast(comm, flat)
        complete(request, seconds, "handing out rank 0's parameters")
        store(array, flat.reshape(array.shape))


def mean(comm: Comm, mine: Array, seconds: float) -> Array:
    """Mean of an array over the ranks."""
    total = np.empty_like(mine)
    request = start_sum(comm, np.ascontiguousarray(mine), total)
    complete(request, seconds, "the average of all ranks")
    total /= comm.size
    return total
