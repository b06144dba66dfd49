"""What must hold before ranks average together, or go on from a save."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from acidmpi.compression.protocol import Compressor, Spec
from acidmpi.errors import ConfigError
from acidmpi.parallel.collectives import FLOATS


def check_specs(specs: Sequence[Spec]) -> None:
    """Raise `ConfigError` unless there are parameters, of types that can be averaged."""
    if not specs:
        raise ConfigError("there must be a parameter to average, got none")
    for index, spec in enumerate(specs):
        if spec.dtype.name not in FLOATS:
            raise ConfigError(
                f"parameters must be of {', '.join(FLOATS)} (as bfloat16), number "
                f"{index} is {spec.dtype}"
            )


def check_complete(states: Sequence[Mapping[str, Any]]) -> None:
    """Raise `ConfigError` unless there is one state of each rank of one save, in order.

    What a missing rank still owed would be lost, and nobody would notice.

    Args:
        states: have `rank` and `size`, the number of ranks that saved them.
    """
    ranks = [state["rank"] for state in states]
    sizes = sorted({state["size"] for state in states})
    if len(sizes) == 1 and ranks == list(range(sizes[0])):
        return
    saved = " and ".join(map(str, sizes)) or "no"
    raise ConfigError(
        "a save is loaded as the list of all its ranks' states in order of rank, as "
        f"gather_state() returns it, got those of ranks {ranks} of a save of {saved} "
        "ranks; load the whole list on every rank"
    )


def describe_start(
    specs: Sequence[Spec], compressor: Compressor, bucket_bytes: int, seed: int
) -> dict[str, str]:
    """What all ranks must agree on, as text: each parameter if they are few."""
    shapes = [f"{list(spec.shape)} {spec.dtype}" for spec in specs]
    digest = hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16]
    return {
        "acidmpi": version("acidmpi"),
        "compression": repr(compressor),
        "bucket_bytes": str(bucket_bytes),
        "seed": str(seed),
        "number of parameters": str(len(specs)),
        "parameters": digest,
    }
