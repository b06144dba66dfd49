"""Broadcasts of parameters and optimizer states, as both foreign packages have them."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from acidmpi.compat.session import Session
from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import confessing
from acidmpi.parallel.torch import functions

Parameters = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Tensor]


def broadcast_parameters(params: Parameters, root_rank: int, here: Session) -> None:
    """Copy rank `root_rank`'s tensors into everyone's; collective.

    Args:
        params: a dictionary, pairs of a name and a tensor, or tensors. None is left out.
        root_rank: whose values count.
        here: the session.
    """
    here.meet("broadcast_parameters")
    with confessing(here.comm, here.seconds):
        tensors = named(params)
    functions.broadcast_parameters(tensors, here.comm, root_rank, here.seconds)


def broadcast_optimizer_state(
    optimizer: Optimizer, root_rank: int, here: Session
) -> None:
    """Give everyone the state and options of rank `root_rank`'s optimizer; collective.

    Args:
        optimizer: any torch optimizer, wrapped or not.
        root_rank: whose state counts.
        here: the session.
    """
    here.meet("broadcast_optimizer_state")
    functions.broadcast_optimizer_state(optimizer, here.comm, root_rank, here.seconds)


def named(params: Parameters) -> list[tuple[str, Tensor]]:
    """Tensors with their names, in an order that is the same on all ranks.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(params, Mapping):
        found: list[Any] = sorted(params.items(), key=lambda item: str(item[0]))
    elif isinstance(params, Iterable):
        found = [_pair(k, item) for k, item in enumerate(params)]
    else:
        raise ConfigError(
            "parameters to broadcast must be a dictionary, pairs of a name and a tensor, "
            f"or tensors, got {type(params).__name__}; pass model.state_dict()"
        )
    return [(str(name), tensor) for name, tensor in found if tensor is not None]


def _pair(number: int, item: Any) -> Any:
    return item if isinstance(item, tuple) and len(item) == 2 else (str(number), item)
