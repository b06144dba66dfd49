"""What trainers are given to write checkpoints and to go on from one.

The state of a trainer is one tree for each rank. Of a run with as many ranks as the one
that wrote it, each rank takes its own tree back. Otherwise all trees are combined, see
`checkpoint.sharing`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from acidmpi.checkpoint.keeper import Keeper
from acidmpi.checkpoint.sets import Manifest
from acidmpi.checkpoint.sharing import mean_of
from acidmpi.checkpoint.tree import Tree, map_arrays
from acidmpi.worker.keeping import (
    Keeping,
    Saved,
    count_of,
    fields_of,
    moment_of,
    regrouped,
)


@dataclass(frozen=True)
class Restart:
    """A complete set, as one rank of a new run sees it."""

    manifest: Manifest
    rank: int
    size: int
    trees: Sequence[Tree]
    """Of each member; where ranks are as many as then, without others' arrays."""

    @property
    def same(self) -> bool:
        """Whether there are as many ranks as there were."""
        return self.manifest.members == tuple(range(self.size))

    @property
    def total_gradients(self) -> int:
        """Gradients of all ranks that are done."""
        return sum(_count(tree) for tree in self.trees)

    @property
    def own_gradients(self) -> int:
        """Gradients that this rank had made."""
        return _count(self.own)

    @property
    def own(self) -> Tree:
        """This rank's tree; whole if `same`."""
        return self.trees[self.rank]


@dataclass
class Kept:
    """Checkpoints of a run.

    Args:
        keeper: keeps this rank's parts.
        restart: what the run goes on from, or None.
    """

    keeper: Keeper
    restart: Restart | None = None
    losses: Callable[[], list[float]] = field(default=list)
    """This rank's recent losses, but for the last one; set by the training loop."""

    def keeping(self, position: Callable[[], Tree]) -> Keeping:
        """Checkpoints as a worker is given them.

        Args:
            position: what the trainer owns.
        """
        saved = None if self.restart is None else _saved(self.restart)
        return Keeping(
            self.keeper,
            lambda: {"losses": self.losses(), **position()},
            saved,
        )

    def recent_losses(self) -> list[float]:
        """Those that the run goes on from."""
        if self.restart is None or not self.restart.same:
            return []
        caller = self.restart.own["caller"]
        losses: list[float] = caller["position"]["losses"]
        return losses if caller["loss"] is None else [*losses, caller["loss"]]


def _saved(restart: Restart) -> Saved:
    """What a worker goes on from."""
    trees = restart.trees
    if restart.same:
        counts = [count_of(tree) for tree in trees]
        moments = [moment_of(tree) for tree in trees]
        return Saved(restart.own, counts, moments, [fields_of(tree) for tree in trees])
    parts = [regrouped(trees, restart.size, rank) for rank in range(restart.size)]
    part = parts[restart.rank] | {"caller": regrouped_callers(restart)}
    moments = [moment_of(each) for each in parts]
    return Saved(part, [count_of(each) for each in parts], moments, [])


def regrouped_callers(restart: Restart) -> Tree:
    """The mean of what the members' compute loops owned; data go on where they were.

    A member that made no gradient has no state of the optimizer yet, and counts not.
    """
    trees = [tree for tree in restart.trees if _count(tree)] or restart.trees[:1]
    callers = [tree["caller"] for tree in trees]
    mean = map_arrays(mean_of, callers)
    position = mean["position"] | {"losses": [], "task": position_of(restart)}
    return mean | {"position": position, "loss": None}


def position_of(restart: Restart) -> Any:
    """This rank's position in the data; None for a rank that is new."""
    if restart.rank >= len(restart.trees):
        return None
    return restart.own["caller"]["position"]["task"]


def _count(tree: Tree) -> int:
    """Gradients of one member."""
    return int(tree["steps"]) if "steps" in tree else count_of(tree)


def restore_task(task: Any, position: Any) -> None:
    """Have `task` go on from a position, if there is one."""
    if position is not None:
        task.restore(position)


def network_state(restart: Restart) -> Tree:
    """What a synchronous trainer of a model goes on from."""
    if restart.same:
        return restart.own["caller"]
    plain = [_without_averaging(tree["caller"]) for tree in restart.trees]
    mean = map_arrays(mean_of, plain)
    averaging = [tree["caller"]["optimizer"].get("acidmpi") for tree in restart.trees]
    optimizer = mean["optimizer"]
    if averaging[0] is not None:
        optimizer = optimizer | {"acidmpi": _gathered(averaging)}
    position = {"task": position_of(restart)}
    return mean | {"optimizer": optimizer, "position": position}


def _without_averaging(caller: Tree) -> Tree:
    optimizer = {k: v for k, v in caller["optimizer"].items() if k != "acidmpi"}
    return caller | {"optimizer": optimizer}


def _gathered(entries: Sequence[Tree]) -> Tree:
    """One entry with all members' states, as `DistributedOptimizer` gathers them."""
    sections = [
        {"names": own[0]["names"], "ranks": [each["ranks"][0] for each in own]}
        for own in zip(*(entry["sections"] for entry in entries), strict=True)
    ]
    return entries[0] | {"sections": sections}


def vector_state(restart: Restart) -> Tree:
    """What a synchronous trainer of a vector goes on from."""
    if restart.same:
        return restart.own["caller"]
    callers = [
        {name: tree["caller"][name] for name in ("x", "momentum")}
        for tree in restart.trees
    ]
    position = {"task": position_of(restart)}
    return map_arrays(mean_of, callers) | {"position": position}


def averager_states(restart: Restart) -> Tree:
    """This rank's state of an averager, or all members'."""
    if restart.same:
        return restart.own["caller"]["averager"]
    return [tree["caller"]["averager"] for tree in restart.trees]
