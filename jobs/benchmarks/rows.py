"""The rows of a batch: options of `acidmpi.bench iteration`, and numbers of ranks.

A file has
- `[defaults]`, options of every row, under the names that the command line has, with
  underscores, and `ranks`;
- `[[rows]]`, each with a `name` and options of its own; `sweep = {OPTION = [VALUES]}`
  makes it one row for each value;
- `[reduced]`, options that `--reduced` puts in the place of a row's, and
  `[reduced.models]`, which model stands in for which. A sweep keeps its first value and
  its last, and rows that have become alike run once.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch import refuse_unknown

from acidmpi.bench.options import IterationOptions
from acidmpi.config.options import options_of
from acidmpi.errors import ConfigError

KNOWN = ("ranks", *(option.name for option in options_of(IterationOptions)))
SECTIONS = ("defaults", "rows", "reduced")


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    ranks: int
    options: IterationOptions

    @property
    def arguments(self) -> list[str]:
        """What follows `python`; only what differs from the defaults."""
        found = ["-m", "acidmpi.bench", "iteration"]
        for option in options_of(IterationOptions):
            value = getattr(self.options, option.name)
            if option.kind is bool and value != option.default:
                found.append(option.flag if value else "--no-" + option.flag[2:])
            elif value != option.default:
                found += [option.flag, str(value)]
        return found

    def described(self) -> dict[str, Any]:
        """As the result file has it."""
        return {"name": self.name, "ranks": self.ranks, **asdict(self.options)}


def read_rows(path: Path, reduced: bool) -> list[Row]:
    """All rows of a file, in its order.

    Raises:
        ConfigError: a key, a name or a value is not acceptable.
    """
    content = tomllib.loads(path.read_text())
    refuse_unknown(content, SECTIONS, str(path))
    smaller = dict(content.get("reduced", {})) if reduced else {}
    models = smaller.pop("models", {})
    rows = []
    for given in content.get("rows", []):
        for name, values in _spread(given, str(path), reduced):
            options = {**content.get("defaults", {}), **values, **smaller}
            if "model" in options:
                options["model"] = models.get(options["model"], options["model"])
            rows.append(make_row(name, options, str(path)))
    _check_names(rows, path)
    return _without_twins(rows) if reduced else rows


def make_row(name: str, values: dict[str, Any], where: str) -> Row:
    """A row from its options.

    Raises:
        ConfigError: one of them is not acceptable.
    """
    refuse_unknown(values, KNOWN, f"{where}, row {name!r}")
    options = dict(values)
    ranks = options.pop("ranks", 2)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ConfigError(
            f"{where}, row {name!r}: ranks must be 1 or more, got {ranks!r}"
        )
    return Row(name, ranks, IterationOptions(**options))


def _spread(
    given: dict[str, Any], where: str, reduced: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    values = dict(given)
    name, sweep = values.pop("name", ""), values.pop("sweep", {})
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", str(name)):
        raise ConfigError(
            f"{where}: the name of a row, a file's too, is made of small letters, digits "
            f"and hyphens, got {name!r}"
        )
    if not sweep:
        yield name, values
    elif len(sweep) > 1:
        raise ConfigError(
            f"{where}, row {name!r}: a sweep is of one option, got {sweep}"
        )
    for option, chosen in sweep.items():
        kept = [chosen[0], chosen[-1]] if reduced and len(chosen) > 1 else chosen
        for value in kept:
            yield f"{name}-{value}", {**values, option: value}


def _check_names(rows: list[Row], path: Path) -> None:
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{path}: rows need names of their own, got {name!r} twice"
            )


def _without_twins(rows: list[Row]) -> list[Row]:
    first = {(row.ranks, row.options): row for row in reversed(rows)}
    return [row for row in rows if first[row.ranks, row.options] is row]
