"""Edge-list files: one edge a line, `i j` or `i j rate`, with `#` comments."""

from collections.abc import Iterator
from pathlib import Path

from acidmpi.errors import TopologyError
from acidmpi.topology.collect import Entry, collect
from acidmpi.topology.graph import Topology


def read_edge_list(path: Path, size: int) -> Topology:
    """Topology of `size` ranks from the edge-list file at `path`.

    Raises:
        TopologyError: if the file cannot be read or its graph cannot be used; the
            message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(
            f"cannot read the edge-list file '{path}': {error}; give a text file of "
            "lines 'i j' or 'i j rate'"
        ) from error
    return collect(_entries(text, str(path)), size, str(path))


def _entries(text: str, name: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.partition("#")[0].split()
        if fields:
            yield _entry(fields, f"{name}:{number}")


def _entry(fields: list[str], where: str) -> Entry:
    if len(fields) not in (2, 3):
        raise TopologyError(
            f"{where}: an edge is 'i j' or 'i j rate', got {' '.join(fields)!r}"
        )
    try:
        first, second = int(fields[0]), int(fields[1])
        rate = float(fields[2]) if len(fields) == 3 else None
    except ValueError as error:
        raise TopologyError(
            f"{where}: an edge is two whole numbers and perhaps a rate, got "
            f"{' '.join(fields)!r}"
        ) from error
    return Entry(first, second, rate, where)
