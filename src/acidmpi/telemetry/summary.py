"""What one run came to: `summary.json` in its folder.

The file is one JSON object. It appears complete or not at all, because it is written
beside its place and renamed; a number that is not finite, or not known when a run is
cut short, is `null`.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from acidmpi.errors import DataError

SCHEMA = 1
"""Version of the format."""

StopReason = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class RankFigures:
    """What each rank reports of itself; lists in the summary, by rank."""

    device: str
    device_uuid: str | None
    gradients: int
    exchanges: int
    control_messages: int
    bytes_sent: int
    idle_seconds: float
    """How long the compute loop waited for communication."""


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """What holds for the run as a whole; `None` is what is not known."""

    task: str
    model: str
    method: str
    pairing: str | None
    """How peers find each other; None where all ranks step together, as in `topology`
    and `comm_rate`."""
    compression: str
    topology: str | None
    size: int
    seed: int
    batch_size: int
    comm_rate: float | None
    comm_rate_measured: float | None
    chi_1: float | None
    chi_2: float | None
    eta: float | None
    alpha_tilde: float | None
    transport: str | None
    mpi_library: str
    versions: Mapping[str, str]
    wall_seconds: float
    consensus_distance: float | None
    """Just before the final average."""
    mean_drift: float | None
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    dead_ranks: Sequence[Mapping[str, Any]]
    """Of each rank that died: `rank`, `seconds` (when the first survivor heard of it),
    `unix_seconds` (the same), `gradients`, `last` (the last thing it is known to have
    done), `heard_seconds` (when that was), `recovered_seconds` (until the last of those
    near to it had exchanged again)."""
    stop_reason: StopReason


FIELDS = (
    "schema",
    *(field.name for field in fields(RunFigures)),
    *(field.name for field in fields(RankFigures)),
)
"""Every key of a summary, in the order in which it is written."""


def make_summary(
    run: RunFigures, ranks: Sequence[RankFigures | None]
) -> dict[str, Any]:
    """The summary of `run`, ready for JSON.

    Args:
        run: what holds for all ranks.
        ranks: each rank's own figures, as gathered; `None` for one that is not known.
    """
    by_rank = {
        field.name: [None if r is None else getattr(r, field.name) for r in ranks]
        for field in fields(RankFigures)
    }
    everything = {"schema": SCHEMA, **asdict(run), **by_rank}
    return {name: _plain(everything[name]) for name in FIELDS}


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Put `summary` at `path`, in one step.

    Raises:
        DataError: the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(summary, file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise DataError(
            f"the summary cannot be written to {path}: {error.strerror}; free space or "
            "choose another folder with --output"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; a number that JSON does not have becomes `None`."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return value
