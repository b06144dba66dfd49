"""Rows of a file: names, sweeps and numbers of ranks, whatever the rows run.

`sweep = {OPTION = [VALUES], …}` makes a row one row for each combination of values.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from acidmpi.config.options import options_of
from acidmpi.errors import ConfigError


def spread(
    given: dict[str, Any], where: str, ends: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows that one table of a file stands for, each with its name.

    Args:
        given: the table; it has a `name`, and perhaps a `sweep`.
        where: names the file in errors.
        ends: keep the first value and the last of each sweep only.

    Raises:
        ConfigError: the name cannot be one of a file, or the sweep is not one.
    """
    values = dict(given)
    name, sweep = values.pop("name", ""), values.pop("sweep", {})
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ConfigError(
            f"{where}: the name of a row, a file's too, is made of small letters, digits "
            f"and hyphens, got {name!r}"
        )
    for chosen in itertools.product(*_choices(sweep, f"{where}, row {name!r}", ends)):
        ending = "".join(f"-{_in_a_name(value)}" for value in chosen)
        yield name + ending, {**values, **dict(zip(sweep, chosen, strict=True))}


def _choices(sweep: Any, where: str, ends: bool) -> list[list[Any]]:
    if not isinstance(sweep, dict) or not all(
        isinstance(values, list) and values for values in sweep.values()
    ):
        raise ConfigError(f"{where}: a sweep is {{OPTION = [VALUES]}}, got {sweep!r}")
    return [
        [values[0], values[-1]] if ends and len(values) > 1 else values
        for values in sweep.values()
    ]


def _in_a_name(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def rows_of(content: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The `[[rows]]` of a file."""
    rows = content.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{where}: rows are tables [[rows]], got {rows!r}")
    return rows


def table_of(content: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """A copy of the table `[name]` of a file, empty where there is none."""
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {name} is a table [{name}], got {table!r}")
    return dict(table)


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse rows that would share a result."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{where}: rows need names of their own, got {name!r} twice"
            )


def take_ranks(values: dict[str, Any], where: str, default: int = 2) -> int:
    """Take the number of ranks out of a row's values."""
    ranks = values.pop("ranks", default)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ConfigError(f"{where}: ranks must be 1 or more, got {ranks!r}")
    return ranks


def flags(config: Any) -> list[str]:
    """The command line that gives `config`; only what differs from the defaults."""
    found = []
    for option in options_of(type(config)):
        value = getattr(config, option.name)
        if option.kind is bool and value != option.default:
            found.append(option.flag if value else "--no-" + option.flag[2:])
        elif value != option.default:
            found += [option.flag, "none" if value is None else str(value)]
    return found
