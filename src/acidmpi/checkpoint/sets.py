"""Sets of checkpoint files in one folder, and which of them are complete.

    checkpoints/set-000003/rank-0.safetensors, rank-0.json, rank-1…, manifest.json

Every rank writes its own two files, the JSON last: it says what the arrays must look
like, and which set, rank and session they are of. One rank writes the manifest when it
knows that all members have done so: that makes the set complete. A *session* is one start
of a run; its name is drawn anew, so that files of different starts cannot be mixed up.

Guarantees:
- `read` returns what the named rank wrote for that set, or raises `Damaged`;
- a set without its manifest is never read; files swapped between ranks or sets are seen,
  because each of them says what it is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acidmpi.checkpoint.files import (
    Checks,
    Damaged,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
)
from acidmpi.checkpoint.tree import Packed, Tree, unpack
from acidmpi.errors import ConfigError

SCHEMA = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"set-(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Which set a file belongs to."""

    session: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What makes a set complete."""

    mark: Mark
    size: int
    """Number of ranks that the run was started with."""
    members: tuple[int, ...]
    """Ranks that have files in it: all, or those that were alive."""
    total_gradients: int
    """Gradients of all ranks, as known when the set was begun."""
    identity: dict[str, str]
    """What a run that goes on from it must have in common."""
    written: str
    """When, in UTC."""


class Sets:
    """The sets below one folder; holds nothing open.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def numbers(self) -> list[int]:
        """Of the sets that are there, complete or not, in order.

        Raises:
            Damaged: the folder cannot be read.
        """
        try:
            names = [each.name for each in self.path.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Damaged(f"{self.path} cannot be read: {error.strerror}") from error
        return sorted(int(m[1]) for m in map(_NAME.fullmatch, names) if m)

    def folder(self, number: int) -> Path:
        """Of one set."""
        return self.path / f"set-{number:06d}"

    def write(self, mark: Mark, rank: int, packed: Packed) -> None:
        """Write one rank's part.

        Raises:
            OSError: the disk is full, or the files cannot be written.
        """
        folder = self.folder(mark.number)
        folder.mkdir(parents=True, exist_ok=True)
        checks = write_arrays(_arrays(folder, rank), packed.arrays)
        content = {
            "schema": SCHEMA,
            "mark": asdict(mark),
            "rank": rank,
            "arrays": checks._asdict(),
            "state": packed.plain,
        }
        write_json(_json(folder, rank), content)

    def seal(self, manifest: Manifest) -> None:
        """Make a set complete.

        Raises:
            OSError: the disk is full, or the file cannot be written.
        """
        path = self.folder(manifest.mark.number) / MANIFEST
        write_json(path, {"schema": SCHEMA, **asdict(manifest)})

    def manifest(self, number: int) -> Manifest:
        """The manifest of a set.

        Raises:
            Damaged: the set has none, or one that is of no use.
            ConfigError: a newer version of the package has written it.
        """
        path = self.folder(number) / MANIFEST
        if not path.exists():
            raise Damaged(f"{path.parent} is not complete: it has no {MANIFEST}")
        manifest = _manifest(path, _checked(path))
        if manifest.mark.number != number:
            raise Damaged(f"{path} is of set {manifest.mark.number}, not {number}")
        return manifest

    def read(self, manifest: Manifest, rank: int) -> Tree:
        """What `rank` kept.

        Raises:
            Damaged: a file is missing, torn, changed or another one's.
            ConfigError: a newer version of the package has written it.
        """
        folder = self.folder(manifest.mark.number)
        content = _own(_json(folder, rank), manifest.mark, rank)
        arrays = read_arrays(_arrays(folder, rank), Checks(**content["arrays"]))
        try:
            return unpack(Packed(content["state"], arrays))
        except KeyError as error:
            raise Damaged(f"{folder} lacks array {error} of rank {rank}") from error

    def plain(self, manifest: Manifest, rank: int) -> Any:
        """What `rank` kept, without its arrays: their names stand for them."""
        folder = self.folder(manifest.mark.number)
        return _own(_json(folder, rank), manifest.mark, rank)["state"]

    def remove(self, number: int, rank: int, leads: bool) -> None:
        """Remove one rank's part; the leader removes all that it sees.

        The manifest goes first; the last rank to come removes the folder. Errors are
        passed over: what is left does no harm.
        """
        folder = self.folder(number)
        with suppress(OSError):
            paths = [_json(folder, rank), _arrays(folder, rank)]
            if leads:
                paths = [folder / MANIFEST, *folder.iterdir()]
            for path in paths:
                path.unlink(missing_ok=True)
            folder.rmdir()


def newest(sets: Sets, tell: Callable[[str], Any]) -> Iterator[Manifest]:
    """Complete sets, the newest first; `tell` hears why others are passed over.

    Args:
        sets: where to look.
        tell: called with a text for each set that is of no use.

    Raises:
        ConfigError: a set is of a newer version: an older set would be taken silently.
    """
    for number in reversed(sets.numbers()):
        try:
            yield sets.manifest(number)
        except Damaged as error:
            tell(str(error))


def _own(path: Path, mark: Mark, rank: int) -> Mapping[str, Any]:
    content = _checked(path)
    found = (content.get("mark"), content.get("rank"))
    if found != (asdict(mark), rank):
        raise Damaged(
            f"{path} must be of rank {rank} in set {mark.number} of session "
            f"{mark.session}, but it says {found}"
        )
    return content


def _checked(path: Path) -> dict[str, Any]:
    content = read_json(path)
    schema = content.pop("schema", None)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigError(
            f"{path} must have schema {SCHEMA} or less, got {schema}: a newer version of "
            "acidmpi wrote it; resume with that one"
        )
    if schema != SCHEMA:
        raise Damaged(f"{path} must have schema {SCHEMA}, got {schema!r}")
    return content


def _manifest(path: Path, content: dict[str, Any]) -> Manifest:
    try:
        members = tuple(content.pop("members"))
        return Manifest(mark=Mark(**content.pop("mark")), members=members, **content)
    except (KeyError, TypeError) as error:  # whole, but some other file
        raise Damaged(f"{path} is not the manifest of a set: {error}") from error


def _json(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def _arrays(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.safetensors"
