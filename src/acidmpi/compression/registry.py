"""Compressors by name: ours, and those that other packages bring.

A package offers its own under the entry point group `acidmpi.compressors`:

    [project.entry-points."acidmpi.compressors"]
    mine = "my_package.compression:Mine"

where `Mine` is a class or a function whose keyword arguments are the options, and whose
result is a `protocol.Compressor`. Names of ours cannot be taken.
"""

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from acidmpi.compression.protocol import Compressor
from acidmpi.errors import ConfigError

GROUP = "acidmpi.compressors"
"""Entry point group of other packages' compressors."""


class _Ours(NamedTuple):
    module: str
    attribute: str
    options: dict[str, Any]


_OURS = {
    "none": _Ours("dense", "NoCompression", {}),
    "fp16": _Ours("dense", "Cast", {"dtype": "float16"}),
    "bf16": _Ours("dense", "Cast", {"dtype": "bfloat16"}),
    "topk": _Ours("sparse", "TopK", {}),
    "randomk": _Ours("sparse", "RandomK", {"block": False}),
    "randomblock": _Ours("sparse", "RandomK", {"block": True}),
    "signnorm": _Ours("signs", "SignNorm", {}),
    "signvote": _Ours("signs", "SignVote", {}),
    "efsign": _Ours("signs", "EFSign", {}),
    "qsgd": _Ours("quantised", "QSGD", {}),
    "terngrad": _Ours("quantised", "TernGrad", {}),
    "onebit": _Ours("signs", "OneBit", {}),
    "powersgd": _Ours("lowrank", "PowerSGD", {}),
    "acpsgd": _Ours("lowrank", "ACPSGD", {}),
}


def names() -> tuple[str, ...]:
    """All known names, ours first."""
    return (*_OURS, *(name for name in _theirs() if name not in _OURS))


def make(name: str, **options: Any) -> Compressor:
    """The compressor called `name`, with these options and defaults for the rest.

    Raises:
        ConfigError: the name or an option is unknown, or a value is not acceptable.
    """
    maker, fixed = _find(name)
    parameters = inspect.signature(maker).parameters
    known = [option for option in parameters if option not in fixed]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"compression {name!r} takes {', '.join(known) or 'no options'}, "
            f"got {', '.join(unknown)}; leave that out"
        )
    compressor: Compressor = maker(**fixed, **options)
    return compressor


def _find(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    if name in _OURS:
        ours = _OURS[name]
        module = import_module(f"acidmpi.compression.{ours.module}")
        return getattr(module, ours.attribute), ours.options
    theirs = _theirs()
    if name not in theirs:
        raise ConfigError(
            f"compression must be one of {', '.join(names())}, got {name!r}; choose one, "
            f"or install a package that offers it as entry point {GROUP!r}"
        )
    return theirs[name].load(), {}


def _theirs() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
