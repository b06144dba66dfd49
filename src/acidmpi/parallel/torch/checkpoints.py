"""What an optimizer's checkpoint says about averaging.

    {"schema": 1, "sections": [{"names": […], "ranks": [averager's state, …]}, …]}

Arrays are kept as tensors, so that `torch.load` reads them with `weights_only`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acidmpi.errors import ConfigError
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.torch.section import Section
from acidmpi.parallel.torch.synchroniser import Synchroniser

KEY = "acidmpi"
SCHEMA = 1

Ranks = list[dict[str, Any]]


def entry(
    sections: Sequence[Section], ranks: Callable[[Averager], Ranks]
) -> dict[str, Any]:
    """Describe all sections.

    Args:
        sections: of the optimizer.
        ranks: the states of one averager, of this rank or of all.
    """
    described = [
        {"names": list(s.names), "ranks": _to_tensors(ranks(s.averager))}
        for s in sections
    ]
    return {"schema": SCHEMA, "sections": described}


def restore(synchroniser: Synchroniser, saved: dict[str, Any], forgetful: bool) -> None:
    """Go on from an entry; collective.

    Parameters are divided into sections as they were then.

    Args:
        synchroniser: of the optimizer.
        saved: the entry.
        forgetful: the compressor remembers nothing: one rank's state is good for all.

    Raises:
        ConfigError: it is of other parameters or of another version.
    """
    if saved.get("schema") != SCHEMA:
        raise ConfigError(
            f"a checkpoint of averaging must have schema {SCHEMA}, got "
            f"{saved.get('schema')!r}; load it with the version that wrote it"
        )
    partition = [tuple(section["names"]) for section in saved["sections"]]
    held = [section.names for section in synchroniser.sections]
    _check_names(sum(partition, ()), sum(held, ()))
    if partition != held:
        synchroniser.divide(partition)
    for section, old in zip(synchroniser.sections, saved["sections"], strict=True):
        ranks = _to_arrays(old["ranks"])
        if forgetful:  # as if a single rank had saved it
            section.averager.load_state_dict([ranks[0] | {"rank": 0, "size": 1}])
        else:
            own = len(ranks) == 1 < ranks[0]["size"]
            section.averager.load_state_dict(ranks[0] if own else ranks)


def _check_names(saved: tuple[str, ...], held: tuple[str, ...]) -> None:
    if sorted(saved) != sorted(held):
        strange = sorted(set(saved) ^ set(held))
        raise ConfigError(
            "a checkpoint must be of the parameters that are trained, but these are in "
            f"one of the two only: {', '.join(strange)}; build, name and freeze the "
            "model as it was"
        )


def _to_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    return _map(_to_tensors, value)


def _to_arrays(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    return _map(_to_arrays, value)


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [change(item) for item in value]
    return value
