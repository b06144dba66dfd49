"""The rows of a batch: options of `acidmpi.bench iteration`, and numbers of ranks.

A file has
- `[defaults]`, options of every row, under the names that the command line has, with
  underscores, and `ranks`;
- `[[rows]]`, each with a `name` and options of its own, and a `sweep` (sweeps.py);
- `[reduced]`, options that `--reduced` puts in the place of a row's, and
  `[reduced.models]`, which model stands in for which. A sweep keeps its first value and
  its last, and rows that have become alike run once.
"""

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch import refuse_unknown
from sweeps import check_names, flags, spread, take_ranks

from acidmpi.bench.options import IterationOptions
from acidmpi.config.options import options_of

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
        return ["-m", "acidmpi.bench", "iteration", *flags(self.options)]

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
        for name, values in spread(given, str(path), ends=reduced):
            options = {**content.get("defaults", {}), **values, **smaller}
            if "model" in options:
                options["model"] = models.get(options["model"], options["model"])
            rows.append(make_row(name, options, str(path)))
    check_names([row.name for row in rows], str(path))
    return _without_twins(rows) if reduced else rows


def make_row(name: str, values: dict[str, Any], where: str) -> Row:
    """A row from its options.

    Raises:
        ConfigError: one of them is not acceptable.
    """
    refuse_unknown(values, KNOWN, f"{where}, row {name!r}")
    options = dict(values)
    ranks = take_ranks(options, f"{where}, row {name!r}")
    return Row(name, ranks, IterationOptions(**options))


def _without_twins(rows: list[Row]) -> list[Row]:
    first = {(row.ranks, row.options): row for row in reversed(rows)}
    return [row for row in rows if first[row.ranks, row.options] is row]
