"""The rows of a batch: options of `acidmpi.bench iteration`, and numbers of ranks.

A file has
- `[defaults]`, options of every row, under the names that the command line has, with
  underscores, and `ranks`;
- `[[rows]]`, each with a `name` and options of its own, and a `sweep` (sweeps.py);
- `[reduced]`, options that `--reduced` puts in the place of a row's, and
  `[reduced.models]`, which model stands in for which. A sweep keeps its first value and
  its last, and rows that have become alike run once.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch import read_toml, refuse_unknown
from sweeps import check_names, flags, rows_of, spread, table_of, take_ranks

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
    content, where = read_toml(path), str(path)
    refuse_unknown(content, SECTIONS, where)
    defaults = table_of(content, "defaults", where)
    smaller = table_of(content, "reduced", where) if reduced else {}
    models = table_of(smaller, "models", f"{where}, [reduced]")
    smaller.pop("models", None)
    rows = []
    for given in rows_of(content, where):
        for name, values in spread(given, where, ends=reduced):
            options = {**defaults, **values, **smaller}
            if isinstance(options.get("model"), str):
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
