"""What must hold before ranks average together."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

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
