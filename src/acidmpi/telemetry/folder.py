"""The folder of one run: its name, what may not be overwritten, what lies in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from acidmpi.config.files import to_toml
from acidmpi.errors import ConfigError, DataError

PARENT = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def summary(self) -> Path:
        """What the run came to."""
        return self.path / "summary.json"

    @property
    def stalls(self) -> Path:
        """Who waited for whom when something took too long; rarely there."""
        return self.path / "stalls.json"

    def metrics(self, rank: int) -> Path:
        """The events of `rank`."""
        return self.path / f"metrics-{rank}.jsonl"

    def of_a_run(self) -> Iterator[Path]:
        """The files of a run that are there."""
        yield from (p for p in (self.config, self.summary, self.stalls) if p.exists())
        yield from sorted(self.path.glob("metrics-*.jsonl"))


def create(output: Path | None, name: str, overwrite: bool, now: datetime) -> RunFolder:
    """Make the folder of a new run; for one rank only.

    Args:
        output: its path; None for a new folder in `PARENT`.
        name: what the name of a new folder begins with.
        overwrite: whether an earlier run in it may be removed.
        now: becomes part of the name of a new folder.

    Raises:
        ConfigError: an earlier run is in it.
        DataError: it cannot be made or written.
    """
    path = output or _free_path(name, now)
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _clear(folder, overwrite)
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise _cannot_write(path, error) from error
    return folder


def join(path: Path) -> RunFolder:
    """The folder that rank 0 has made, made here too where disks are not shared.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return RunFolder(path)


def write_config(folder: RunFolder, config: Any) -> None:
    """Write the resolved configuration, ready for `--config`.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        folder.config.write_text(to_toml(config), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder.path, error) from error


def _free_path(name: str, now: datetime) -> Path:
    stem = f"{name}-{now:%Y%m%d-%H%M%S}"
    path, count = PARENT / stem, 1
    while path.exists():
        count += 1
        path = PARENT / f"{stem}-{count}"
    return path


def _clear(folder: RunFolder, overwrite: bool) -> None:
    """Remove the files of an earlier run if that is allowed; others are left alone."""
    found = list(folder.of_a_run())
    if found and not overwrite:
        raise ConfigError(
            f"{folder.path} holds an earlier run ({found[0].name}); choose another "
            "folder with --output, or add --overwrite"
        )
    for path in found:
        path.unlink()


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(
        f"the run's folder {path} cannot be written: {error.strerror}; choose another "
        "one with --output"
    )
