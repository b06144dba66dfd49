"""Broadcasts of parameters and optimizer states, as both foreign packages have them."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from acidmpi.compat.session import Session
from acidmpi.parallel.torch import functions

Parameters = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Tensor]


def broadcast_parameters(params: Parameters, root_rank: int, here: Session) -> None:
    """Copy rank `root_rank`'s tensors into everyone's; collective.

    Args:
        params: a dictionary, pairs of a name and a tensor, or tensors. None is left out.
        root_rank: whose values count.
        here: the session.
    """
    functions.broadcast_parameters(named(params), here.comm, root_rank, here.seconds)


def broadcast_optimizer_state(
    optimizer: Optimizer, root_rank: int, here: Session
) -> None:
    """Give everyone the state and options of rank `root_rank`'s optimizer; collective.

    Args:
        optimizer: any torch optimizer, wrapped or not.
        root_rank: whose state counts.
        here: the session.
    """
    functions.broadcast_optimizer_state(optimizer, here.comm, root_rank, here.seconds)


def named(params: Parameters) -> dict[str, Tensor]:
    """Tensors by name, in an order that is the same on all ranks."""
    if isinstance(params, Mapping):
        found: list[Any] = sorted(params.items())
    else:
        found = [_pair(k, item) for k, item in enumerate(params)]
    return {name: tensor for name, tensor in found if tensor is not None}


def _pair(number: int, item: Any) -> Any:
    return item if isinstance(item, tuple) else (str(number), item)
