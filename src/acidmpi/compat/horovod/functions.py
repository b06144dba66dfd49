"""Broadcasts of models, optimizer states and objects."""

import pickle
from typing import Any

import torch
from torch.optim import Optimizer

from acidmpi.compat import state
from acidmpi.compat.horovod.basics import session
from acidmpi.compat.horovod.process_sets import (
    ProcessSet,
    check_global,
    global_process_set,
)
from acidmpi.mpi.collectives import agreeing, allgather
from acidmpi.parallel.torch import functions


def broadcast_parameters(params: state.Parameters, root_rank: int) -> None:
    """Copy rank `root_rank`'s tensors into everyone's; collective.

    Args:
        params: `model.state_dict()`, `model.named_parameters()` or `model.parameters()`.
        root_rank: whose values count.
    """
    state.broadcast_parameters(params, root_rank, session())


def broadcast_optimizer_state(
    optimizer: Optimizer, root_rank: int, model: torch.nn.Module | None = None
) -> None:
    """Give everyone the state and options of rank `root_rank`'s optimizer; collective.

    Args:
        optimizer: any torch optimizer, wrapped or not.
        root_rank: whose state counts.
        model: not needed here; Horovod looks for sparse parameters in it.
    """
    del model
    state.broadcast_optimizer_state(optimizer, root_rank, session())


def broadcast_object(
    obj: Any,
    root_rank: int = 0,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Rank `root_rank`'s object on every rank, by way of pickle; collective.

    Args:
        obj: anything that can be pickled; other ranks' is ignored.
        root_rank: whose object counts.
        name: ignored.
        process_set: must be `global_process_set`.
    """
    check_global(process_set)
    del name
    here = session()
    here.meet("broadcast_object")
    return functions.broadcast_object(obj, here.comm, root_rank, here.seconds)


def allgather_object(obj: Any, name: str | None = None) -> list[Any]:
    """Everyone's object, by rank, by way of pickle; collective."""
    here = session()
    what = "allgather_object" if name is None else f"allgather_object({name!r})"
    here.meet(what)
    with agreeing(here.comm, here.seconds):
        mine = pickle.dumps(obj)
    everyone = allgather(here.comm, mine, here.seconds, what)
    return list(map(pickle.loads, everyone))
