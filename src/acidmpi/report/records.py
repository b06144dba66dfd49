"""One pass over the metrics of one rank."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acidmpi.errors import DataError
from acidmpi.report.timeline import Timeline
from acidmpi.telemetry.metrics import SCHEMA

Record = dict[str, Any]

RESTART_SECONDS = 1.0
"""Records of a rank's two loops come in another order by less than that."""


@dataclass
class RankRecords:
    """What one rank's file came to."""

    timeline: Timeline = field(default_factory=Timeline)
    peers: Counter[int] = field(default_factory=Counter)
    """Exchanges with each peer."""

    gradients: int = 0
    last_gradient_seconds: float = 0.0
    last_seconds: float = 0.0
    """When the last event of any kind was."""

    before_seconds: float = 0.0
    """How long earlier starts of the run took."""

    records: int = 0


def read_records(path: Path) -> RankRecords:
    """Read a file line by line; what a killed run left of its last line is passed over.

    Raises:
        DataError: the file cannot be read, or a line of it is no record.
    """
    found = RankRecords()
    number = 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                if not line.endswith(b"\n"):
                    break
                _take(found, json.loads(line.decode()))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"line {max(number, 1)} of {path} must be a record of a run, got "
            f"{_why(error)}; leave this run out"
        ) from error
    return found


def _take(found: RankRecords, record: Record) -> None:
    if record["schema"] != SCHEMA:
        raise ValueError(f"schema {record['schema']!r}, not {SCHEMA}")
    found.records += 1
    if "seconds" in record:
        record["seconds"] = _since_the_first_start(found, record["seconds"])
    take = _KINDS.get(record["kind"])
    if take is not None:
        take(found, record)


def _since_the_first_start(found: RankRecords, seconds: float) -> float:
    """A run that went on from a checkpoint has counted from zero again."""
    if seconds + found.before_seconds < found.last_seconds - RESTART_SECONDS:
        found.before_seconds = found.last_seconds
    seconds += found.before_seconds
    found.last_seconds = max(found.last_seconds, seconds)
    return seconds


def _gradient(found: RankRecords, record: Record) -> None:
    seconds, loss = record["seconds"], record["loss"]
    found.timeline.add("gradients", seconds, 1.0)
    if loss is not None:
        found.timeline.add("loss", seconds, loss)
    found.gradients += 1
    found.last_gradient_seconds = max(found.last_gradient_seconds, seconds)


def _exchange(found: RankRecords, record: Record) -> None:
    found.timeline.add("bytes", record["seconds"], record["sent_bytes"])
    found.peers[int(record["peer"])] += 1


def _heartbeat(found: RankRecords, record: Record) -> None:
    found.timeline.add("beats", record["seconds"], record["total_gradients"])
    if record["consensus_distance"] is not None:
        found.timeline.add(
            "consensus_distance", record["seconds"], record["consensus_distance"]
        )


def _evaluation(found: RankRecords, record: Record) -> None:
    for name in ("test_loss", "test_accuracy"):
        if record[name] is not None:
            found.timeline.add(name, record["seconds"], record[name])


_KINDS: dict[str, Callable[[RankRecords, Record], None]] = {
    "gradient": _gradient,
    "exchange": _exchange,
    "heartbeat": _heartbeat,
    "evaluation": _evaluation,
}
"""Kinds that are not here are passed over: later versions may have more."""


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "something that is not JSON"
    if isinstance(error, KeyError):
        return f"one without {error.args[0]!r}"
    return f"one that cannot be used ({error})"
