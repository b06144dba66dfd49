"""Run folders, read and checked.

A folder that lacks what a finished run has is no mistake: it is drawn as far as it goes,
and `Run.missing` says what is not there. A folder whose files contradict each other is one.
"""

import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from acidmpi.errors import ConfigError, DataError
from acidmpi.report.records import RankRecords, read_records
from acidmpi.report.timeline import Values, common_width, together
from acidmpi.telemetry.summary import SCHEMA

CONFIG, SUMMARY, NOTES = "config.toml", "summary.json", "notes.toml"
"""`notes.toml` is the user's: keys and values that are compared like options, for what a
run does not know of itself, such as the network it ran on."""

SMOOTHING = 0.02
"""Share of a run over which its training loss is averaged."""

SIMULATED = "simulated"
"""The transport of runs of `acidmpi.simulate`."""

METRICS = re.compile(r"metrics-(\d+)\.jsonl")
BY_RANK = ("gradients", "bytes_sent", "idle_seconds")


@dataclass(frozen=True)
class Curves:
    """Quantities of all ranks together at the ends of equal bins; NaN is not known."""

    seconds: Values
    gradients: Values
    """Of all ranks, so far."""

    bytes: Values
    """Sent by all ranks, so far."""

    loss: Values
    """Training loss, averaged over ranks and over `SMOOTHING` of the run."""

    consensus_distance: Values
    test_loss: Values
    test_accuracy: Values


@dataclass(frozen=True)
class Run:
    """One run."""

    path: Path
    options: dict[str, Any]
    """From config.toml and notes.toml."""

    summary: dict[str, Any]
    """Empty where there is none."""

    ranks: dict[int, RankRecords]

    @property
    def size(self) -> int:
        """How many ranks there were, as far as the files tell."""
        told = self.summary.get("size") or self.options.get("ranks")  # of a simulation
        return int(told or max(self.ranks, default=-1) + 1)

    @property
    def seed(self) -> Any:
        """Of the run."""
        return self.options.get("seed", self.summary.get("seed"))

    @property
    def finished(self) -> bool:
        """Whether it came to its own end, with everything there."""
        return not self.missing

    @property
    def missing(self) -> str:
        """What a finished run would have; empty for one that is."""
        if not self.summary:
            return "no summary: still running, or killed"
        reason = self.summary["stop_reason"]
        absent = [rank for rank in self._writing if rank not in self.ranks]
        if reason != "finished":
            return f"ended early: {reason}"
        return f"no metrics of ranks {ranges(absent)}" if absent else ""

    @property
    def _writing(self) -> range:
        """Ranks that write metrics; a simulator need not, but for the first."""
        simulated = self.summary.get("transport") == SIMULATED
        return range(1 if simulated else self.size)

    @property
    def train_seconds(self) -> float:
        """From the start of training to the last gradient, if there is one."""
        ranks = self.ranks.values()
        last = max((rank.last_gradient_seconds for rank in ranks), default=0.0)
        return last or max((rank.last_seconds for rank in ranks), default=0.0)

    @cached_property
    def curves(self) -> Curves:
        """The run as lines."""
        timelines = [rank.timeline for rank in self.ranks.values()]
        width = common_width(timelines)
        found = {
            name: together(timelines, name)
            for name in (
                *("gradients", "beats", "bytes", "loss"),
                *("consensus_distance", "test_loss", "test_accuracy"),
            )
        }
        used = np.flatnonzero(sum(counts for _, counts in found.values()))
        end = int(used[-1]) + 1 if len(used) else 0
        means = {name: _mean(*pair)[:end] for name, pair in found.items()}
        gradients = np.cumsum(found["gradients"][1])[:end]
        if not any(rank.gradients for rank in self.ranks.values()):
            told = np.nan_to_num(means["beats"])
            gradients = np.maximum.accumulate(told) if end else told
        return Curves(
            seconds=width * np.arange(1.0, end + 1),
            gradients=gradients,
            bytes=self._bytes(np.cumsum(found["bytes"][0])[:end], gradients),
            loss=_windowed_mean(*(part[:end] for part in found["loss"])),
            consensus_distance=means["consensus_distance"],
            test_loss=means["test_loss"],
            test_accuracy=means["test_accuracy"],
        )

    def _bytes(self, recorded: Values, gradients: Values) -> Values:
        """Where exchanges are not recorded, the total is spread over the gradients."""
        sent = _total(self.summary.get("bytes_sent"))
        if not len(recorded) or recorded[-1] > 0 or not sent or not gradients[-1]:
            return recorded
        spread: Values = gradients / gradients[-1] * sent
        return spread


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders among `paths` and directly below them.

    Raises:
        ConfigError: there is none at one of them.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(config.parent for config in path.glob(f"*/{CONFIG}"))
        runs = [path] if (path / CONFIG).is_file() else below
        if not runs:
            what = "it has neither" if path.is_dir() else "there is no such folder"
            raise ConfigError(
                f"{path} must be the folder of a run, with {CONFIG} in it, or hold such "
                f"folders, but {what}; see --output of acidmpi.train"
            )
        found += [run for run in runs if run not in found]
    return found


def read_run(path: Path) -> Run:
    """Read one folder.

    Raises:
        DataError: its files cannot be read, or do not belong together.
    """
    options = _toml(path / CONFIG)
    if (path / NOTES).exists():
        options |= _toml(path / NOTES)
    summary = _summary(path / SUMMARY)
    metrics = {
        int(found[1]): file
        for file in path.iterdir()
        if (found := METRICS.fullmatch(file.name))
    }
    _check(path, options, summary, sorted(metrics))
    ranks = {rank: read_records(metrics[rank]) for rank in sorted(metrics)}
    return Run(path, options, summary, ranks)


def ranges(numbers: Sequence[int]) -> str:
    """`0, 2-5, 9` for those numbers."""
    pieces: list[list[int]] = []
    for number in numbers:
        if pieces and pieces[-1][-1] == number - 1:
            pieces[-1] = [pieces[-1][0], number]
        else:
            pieces.append([number])
    return ", ".join("-".join(map(str, piece)) for piece in pieces)


def _check(
    path: Path, options: dict[str, Any], summary: dict[str, Any], ranks: list[int]
) -> None:
    """Files of two runs in one folder are told, as far as they can be told."""
    if not summary:
        return
    for name in ("task", "method", "seed"):
        if name in options and summary[name] != options[name]:
            raise DataError(
                f"{path} holds files of different runs: {name} is {options[name]!r} in "
                f"{CONFIG} and {summary[name]!r} in {SUMMARY}; leave this run out"
            )
    beyond = [rank for rank in ranks if rank >= summary["size"]]
    if beyond:
        raise DataError(
            f"{path} holds files of different runs: {SUMMARY} has {summary['size']} "
            f"ranks, but there are metrics of ranks {ranges(beyond)}; leave this run out"
        )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error


def _summary(path: Path) -> dict[str, Any]:
    """Empty where there is none."""
    if not path.exists():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise DataError(
            f"{path} must be a summary of schema {SCHEMA}; it was written by another "
            "version of acidmpi, or by another program"
        )
    if not isinstance(summary.get("size"), int):
        raise DataError(f"{path} is no whole summary: size is {summary.get('size')!r}")
    needed = ("task", "method", "seed", "size", "stop_reason", *BY_RANK)
    lacking = [name for name in needed if name not in summary]
    lacking += [name for name in BY_RANK if not _numbers(summary.get(name))]
    lacking += [name for name in summary if not _usable(name, summary[name])]
    if lacking:
        raise DataError(
            f"{path} is no whole summary: {lacking[0]} is not as it should be"
        )
    return summary


def _mean(sums: Values, counts: Values) -> Values:
    known = counts > 0
    mean: Values = np.where(known, sums / np.maximum(counts, 1), np.nan)
    return mean


def _windowed_mean(sums: Values, counts: Values) -> Values:
    """Where there are events at all."""
    mean = _mean(_windowed(sums), _windowed(counts))
    mean[counts == 0] = np.nan
    return mean


def _windowed(values: Values) -> Values:
    """Sums over a window around each value.

    It is shorter at the beginning, where losses fall fast, and cut off at the end, where
    few may have come.
    """
    half = round(len(values) * SMOOTHING / 2)
    places = np.arange(len(values))
    before = np.minimum(half, places)
    behind = np.minimum(before, places[::-1])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    window: Values = sums[places + behind + 1] - sums[places - before]
    return window


def _usable(name: str, value: Any) -> bool:
    """Numbers are finite, as JSON has no others, and what is looked into can be."""
    if name == "dead_ranks":
        return isinstance(value, list | None) and all(
            isinstance(death, dict) and "rank" in death for death in value or []
        )
    if name == "versions":
        return isinstance(value, dict | None)
    return not isinstance(value, float) or math.isfinite(value)


def _numbers(values: Any) -> bool:
    """Whether it is a list of numbers, some of which may be unknown."""
    return isinstance(values, list) and all(
        isinstance(value, int | float | None) for value in values
    )


def _total(values: Any) -> float:
    return float(sum(value or 0 for value in values or []))
