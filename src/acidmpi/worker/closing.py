"""What ranks do together at the end: a last checkpoint, and the average of survivors.

Nothing is written to the model before all survivors have the result: when one of them
dies first, the others begin again, with what they had.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import store, to_host
from acidmpi.arrays.precision import narrow, widen
from acidmpi.mpi.reductions import Comm
from acidmpi.mpi.survival import Survivors, together
from acidmpi.worker.final import Spread, check_shapes, mean, spread_of
from acidmpi.worker.keeping import Cutter
from acidmpi.worker.ledger import INTERRUPTED
from acidmpi.worker.state import RankState

Array = NDArray[Any]
Reach = Callable[[str], None]


class End(NamedTuple):
    """What the survivors have found."""

    ranks: tuple[int, ...]
    """Those who took part."""

    spread: Spread
    drift: float
    """What exchanges among them added to the mean of (x + x̃)/2, of a sample."""
    interrupted: bool


class _Means(NamedTuple):
    drift: Array
    spread: Spread
    blocks: list[Array]
    buffers: list[Array]


@contextmanager
def closed_on_error(close: Callable[[BaseException], None]) -> Iterator[None]:
    """Nobody will close what could not be made, and MPI writes to what is at hand."""
    try:
        yield
    except BaseException as error:
        close(error)
        raise


def average_survivors(
    comm: Comm, parts: Any, buffers: Sequence[Array], seconds: float, reach: Reach
) -> End:
    """Set x, x̃ and `buffers` of every survivor to their mean.

    Args:
        comm: all ranks, dead ones included.
        parts: this rank's.
        buffers: further float arrays.
        seconds: how long the survivors may let each other wait.
        reach: called before each part; for drills.

    Raises:
        DeadlineExceeded: a survivor does not take part.
    """
    parts.state.flush()

    def stage(survivors: Survivors) -> _Means:
        return _means(survivors, parts, buffers, seconds, reach)

    means, ranks = together(comm, stage, seconds)
    _put(parts.state, buffers, means)
    drift, checked, interrupted = means.drift
    scale = checked * means.spread.rms
    return End(
        ranks, means.spread, abs(drift) / scale if scale else 0.0, bool(interrupted)
    )


def keep_last(comm: Comm, parts: Any, seconds: float, *, mortal: bool) -> None:
    """Take a last part if there is to be one, see `Keeper.takes_last`; collective.

    Args:
        comm: all ranks, dead ones included.
        parts: this rank's.
        seconds: how long the ranks may let each other wait.
        mortal: whether there may be dead ones.
    """
    cutter: Cutter | None = parts.cutter
    if cutter is None:
        return
    stopped = bool(parts.ledger.flags & INTERRUPTED)
    words = np.array(cutter.keeper.last_words(stopped), np.float64)

    def add_up(survivors: Survivors) -> Array:
        return mean(survivors.comm, words, seconds) * len(survivors.ranks)

    everyone = Survivors(comm, tuple(range(comm.size)))
    if mortal:
        sums, ranks = together(comm, add_up, seconds)
    else:
        sums, ranks = add_up(everyone), everyone.ranks
    if cutter.keeper.takes_last(sums, ranks):
        cutter.take_last(parts.ledger.total_gradients)


def _means(
    survivors: Survivors,
    parts: Any,
    buffers: Sequence[Array],
    seconds: float,
    reach: Reach,
) -> _Means:
    comm, ranks = survivors
    reach("final")
    exchanger, stopped = parts.exchanger, parts.ledger.flags & INTERRUPTED
    dead = set(range(parts.pulse.size)) - set(ranks)
    mine = [exchanger.drift_without(dead), exchanger.checked, stopped]
    drift = mean(comm, np.array(mine, np.float64), seconds)
    reach("final")
    spread, blocks = _mean_of_state(comm, parts.state, seconds)
    reach("final")
    check_shapes(comm, buffers, seconds)
    return _Means(drift, spread, blocks, [_mean_of(comm, b, seconds) for b in buffers])


def _mean_of_state(
    comm: Comm, state: RankState, seconds: float
) -> tuple[Spread, list[Array]]:
    sums, blocks = np.zeros(3), []
    for chunk in state.blocks:
        x, half = state.read(chunk), state.read_half(chunk)
        wide = widen(x).astype(np.float64)
        away = wide - mean(comm, wide, seconds)
        sums += np.array([away @ away, wide @ wide, x.size])
        blocks.append(narrow(mean(comm, widen(half), seconds), x.dtype))
    return spread_of(mean(comm, sums, seconds)), blocks


def _mean_of(comm: Comm, array: Array, seconds: float) -> Array:
    flat = np.ascontiguousarray(to_host(array)).reshape(-1)
    return narrow(mean(comm, widen(flat), seconds), array.dtype).reshape(array.shape)


def _put(state: RankState, buffers: Sequence[Array], means: _Means) -> None:
    for chunk, block in zip(state.blocks, means.blocks, strict=True):
        state.write(chunk, block)
    state.restart()
    for array, found in zip(buffers, means.buffers, strict=True):
        store(array, found)
