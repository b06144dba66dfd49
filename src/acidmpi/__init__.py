"""Decentralised, communication-efficient training over MPI.

The package is lazy: importing it starts neither MPI nor CUDA and loads no heavy library;
each public name is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acidmpi.worker.gossip import Gossip as Gossip
    from acidmpi.worker.torch.worker import Worker as Worker

__version__ = "0.1.0"

_PUBLIC = {
    "Gossip": "acidmpi.worker.gossip",
    "Worker": "acidmpi.worker.torch.worker",
}

__all__ = ["Gossip", "Worker", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'acidmpi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
