"""Decentralised, communication-efficient training over MPI.

The package is lazy: importing it starts neither MPI nor CUDA and loads no heavy library;
each public name is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acidmpi.compression.dense import Cast as Cast
    from acidmpi.compression.dense import NoCompression as NoCompression
    from acidmpi.compression.lowrank import ACPSGD as ACPSGD
    from acidmpi.compression.lowrank import PowerSGD as PowerSGD
    from acidmpi.compression.quantised import QSGD as QSGD
    from acidmpi.compression.quantised import TernGrad as TernGrad
    from acidmpi.compression.signs import EFSign as EFSign
    from acidmpi.compression.signs import OneBit as OneBit
    from acidmpi.compression.signs import SignNorm as SignNorm
    from acidmpi.compression.signs import SignVote as SignVote
    from acidmpi.compression.sparse import RandomK as RandomK
    from acidmpi.compression.sparse import TopK as TopK
    from acidmpi.parallel.torch.optimizer import (
        DistributedOptimizer as DistributedOptimizer,
    )
    from acidmpi.worker.gossip import Gossip as Gossip
    from acidmpi.worker.torch.worker import Worker as Worker

__version__ = "0.1.0"

_PUBLIC = {
    "ACPSGD": "acidmpi.compression.lowrank",
    "Cast": "acidmpi.compression.dense",
    "DistributedOptimizer": "acidmpi.parallel.torch.optimizer",
    "EFSign": "acidmpi.compression.signs",
    "Gossip": "acidmpi.worker.gossip",
    "NoCompression": "acidmpi.compression.dense",
    "OneBit": "acidmpi.compression.signs",
    "PowerSGD": "acidmpi.compression.lowrank",
    "QSGD": "acidmpi.compression.quantised",
    "RandomK": "acidmpi.compression.sparse",
    "SignNorm": "acidmpi.compression.signs",
    "SignVote": "acidmpi.compression.signs",
    "TernGrad": "acidmpi.compression.quantised",
    "TopK": "acidmpi.compression.sparse",
    "Worker": "acidmpi.worker.torch.worker",
}

__all__ = [  # noqa: RUF022 - what most look for comes first
    "Worker",
    "Gossip",
    "DistributedOptimizer",
    "NoCompression",
    "Cast",
    "TopK",
    "RandomK",
    "SignNorm",
    "SignVote",
    "EFSign",
    "OneBit",
    "QSGD",
    "TernGrad",
    "PowerSGD",
    "ACPSGD",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'acidmpi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
