"""A rank's part of a checkpoint: what it is made of, when it is taken, how it comes back.

The moment. A heartbeat tells all ranks that a set is due. Each takes its part between two
exchanges, as soon as it is in none and asks nobody: x, x̃ and all that goes with them are
copied under the lock of the state, which holds up a gradient or an exchange no longer
than that. The parts are of different moments, and yet no exchange is in one part and not
in the other: every question and answer says how many parts its sender will have taken
when the exchange begins, and both ends take the larger number for theirs.
So ½Σ(x + x̃) over a set is what it was over the ranks, but for gradients: each part has
those that its rank had made.

What the compute loop owns, its position in the data and the state of the optimizer, is
*published* by the engine with every gradient, under the same lock as the gradient itself:
a part holds either both or neither.

In logical time a part is taken by the compute loop, when all exchanges due before its next
gradient have been made: at the same event on every start, so that a run that goes on from
there is the same to the last bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import is_on_device, to_host
from acidmpi.arrays.precision import narrow, widen
from acidmpi.checkpoint.keeper import Keeper
from acidmpi.checkpoint.sharing import mean_of, share
from acidmpi.checkpoint.tree import Tree
from acidmpi.dynamics.timebase import RationedTheta
from acidmpi.worker.units import LogicalUnits

Array = NDArray[Any]


@dataclass
class Saved:
    """A rank's part of an earlier set, and what the others' say about all."""

    part: Tree
    counts: list[int]
    """Gradients of each rank."""
    moments: list[float]
    """Units of time that had passed on each rank."""
    fields: list[list[float]]
    """What each rank had added to sums; empty where ranks are others than then."""


@dataclass
class Keeping:
    """Checkpoints as an engine is given them.

    Args:
        keeper: keeps this rank's parts.
        position: what the caller owns, as a tree. Its arrays are changed by gradient
            events only, or never.
        saved: to go on from, or None.
    """

    keeper: Keeper
    position: Callable[[], Tree] = dict
    saved: Saved | None = None
    learned: Callable[[], Tree] = dict
    """What a `Worker` adds to the position: optimizer and buffers."""
    published: Tree = None
    """The position at the last gradient event; guarded by the lock of the state."""

    def begin(self) -> None:
        """Before communication begins."""
        if self.saved is not None:
            self.published = self.saved.part["caller"]
        else:
            self.note(None)

    def publish(self, loss: float | None, state: Any) -> None:
        """A gradient event has happened: note the position. Holds the lock of `state`.

        In a turn, because a device copies the model's buffers for it.
        """
        if self.keeper.regular:
            with state.computing():
                self.note(loss)

    def note(self, loss: float | None) -> None:
        """Note the position as it is now."""
        self.published = {
            "position": self.position(),
            "learned": self.learned(),
            "loss": loss,
        }


class Cutter:
    """Takes this rank's part of each set; owned by whoever runs the communication.

    Args:
        keeping: whose keeper says when.
        parts: objects with `state()`, by name; all but `state` are the communication
            loop's own.
        state: the parameters, whose lock is held.
        scheme: how ranks communicate; another scheme begins anew.
    """

    def __init__(
        self, keeping: Keeping, parts: dict[str, Any], state: Any, scheme: str
    ) -> None:
        self._keeping = keeping
        self._parts = parts
        self._state = state
        self._scheme = scheme

    @property
    def keeper(self) -> Keeper:
        """This rank's."""
        return self._keeping.keeper

    @property
    def promised(self) -> int:
        """Parts that will be taken before the next exchange: rides on messages."""
        keeper = self._keeping.keeper
        return max(keeper.taken, keeper.series.due)

    @property
    def taken(self) -> int:
        """Parts that have been taken."""
        return self._keeping.keeper.taken

    def poll(self) -> None:
        """Take a part if a set is due. To be called between two exchanges."""
        if self._keeping.keeper.wants:
            self.take()

    def reach(
        self,
        total: int,
        stopped: Callable[[], bool],
        wait_while: Callable[[Callable[[], bool]], None],
    ) -> None:
        """In logical time all ranks have made so many gradients: take a part if due.

        The set before must be over first: which sets there are depends on the work alone.

        Args:
            total: gradients of all ranks, as this one's say.
            stopped: whether the run is being stopped; then nothing is taken.
            wait_while: lets communication go on while something holds.
        """
        keeper = self._keeping.keeper
        if not keeper.series.reaches(total):
            return
        wait_while(lambda: keeper.series.under_way and not stopped())
        if not stopped():
            keeper.passed(total)
            self.poll()

    def follow(self, promised: int) -> None:
        """An exchange is about to begin, of which one end has promised so many parts."""
        if promised > self._keeping.keeper.taken:
            self.take()

    def take(self) -> None:
        """Copy everything; the lock is held for that."""
        with self._state.communicating():
            self._keeping.keeper.take(self._tree)

    def take_last(self, total_gradients: int) -> None:
        """The last part, when all communication has ended; published or not."""
        keeping = self._keeping
        if not keeping.keeper.regular:
            with self._state.computing():
                keeping.note(None)
        with self._state.communicating():
            keeping.keeper.take_last(self._tree, total_gradients)

    def restore(self) -> None:
        """Go on from what was saved, if anything; before communication begins."""
        saved = self._keeping.saved
        if saved is None:
            return
        part, events = saved.part, self._first_events(saved)
        self._parts["ledger"].restore(part["ledger"], saved.counts)
        for name in ("state", "units"):
            self._parts[name].restore(part[name])
        self._parts["averaging"].marks.skip(sum(saved.counts))
        same = part["scheme"] == self._scheme
        if same:
            self._parts["tally"].restore(part["tally"])
            self._parts["ledger"].set_exchanges(part["tally"]["exchanges"])
            self._parts["exchanger"].restore(part["exchanger"])
            self._parts["pulse"].restore(part["pulse"], np.array(saved.fields))
        else:
            self._parts["ledger"].count_exchanges_anew()
            self._parts["pulse"].begin_after(sum(saved.counts))
        for name in ("machine", "demand"):
            self._parts[name].restore(part[name] if same else {}, events)

    def _first_events(self, saved: Saved) -> float:
        """The moment from which on events happen, the same on all ranks.

        By a clock, gradients do not tell it: ranks make more and fewer than the mean.
        """
        logical = isinstance(self._parts["units"], LogicalUnits)
        return max(saved.counts) + 1.0 if logical else max(saved.moments)

    def _tree(self) -> Tree:
        trees = {
            name: each.state()
            for name, each in self._parts.items()
            if name != "averaging"
        }
        tree = {"scheme": self._scheme, "caller": self._keeping.published, **trees}
        return _on_host(tree)


def _on_host(tree: Tree) -> Tree:
    """`tree` with a copy, in host memory, of each array that a device holds.

    The lock is held while they are copied, as it is while a host's arrays are.
    """
    if isinstance(tree, dict):
        return {key: _on_host(item) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [_on_host(item) for item in tree]
    return to_host(tree) if is_on_device(tree) else tree


def fields_of(part: Tree) -> list[float]:
    """What a rank had added to sums, from its part."""
    found: list[float] = part["pulse"]["fields"]
    return found


def moment_of(part: Tree) -> float:
    """Units of time that had passed on a rank, from its part."""
    return float(part["units"]["now"])


def count_of(part: Tree) -> int:
    """Gradients that a rank had made, from its part."""
    return int(part["ledger"]["gradients"])


def regrouped(parts: Sequence[Tree], size: int, rank: int) -> Tree:
    """The part of `rank` of `size` that goes on from those of other ranks.

    x and x̃ are the mean of (x + x̃)/2 over all; gradients are shared out; communication
    begins anew.
    """
    total = sum(count_of(part) for part in parts)
    x = [_mean_half(arrays) for arrays in zip(*map(_halves, parts), strict=True)]
    dtypes = [array.dtype for array in parts[0]["state"]["x"]]
    own = share(total, size, rank)
    state = {
        "x": [narrow(a, d) for a, d in zip(x, dtypes, strict=True)],
        "x_tilde": x,
        "stands_at": 0.0,
        "theta": RationedTheta().state() | {"units": float(own)},
    }
    ledger = {
        "gradients": own,
        "samples": share(sum(p["ledger"]["samples"] for p in parts), size, rank),
        "losses": [0.0, 0],
        "idle_seconds": 0.0,
    }
    units = {"now": float(own), "unit_seconds": parts[0]["units"]["unit_seconds"]}
    return {"scheme": "", "state": state, "ledger": ledger, "units": units}


def _halves(part: Tree) -> list[Array]:
    """(x + x̃)/2 of one rank, in the precision of x̃."""
    state = part["state"]
    pairs = zip(state["x"], state["x_tilde"], strict=True)
    return [widen(x) if tilde is None else (widen(x) + tilde) / 2 for x, tilde in pairs]


def _mean_half(arrays: Sequence[Array]) -> Array:
    return mean_of(list(arrays))
