"""Files of links: edges with a latency and a bandwidth of their own.

One edge a line, `i j latency_seconds gigabits_per_second`, with `#` comments.
"""

from pathlib import Path

from acidmpi.errors import ConfigError
from acidmpi.simulate.network import Link

WANTED = "'i j latency_seconds gigabits_per_second'"


def read_links(path: Path, size: int) -> dict[tuple[int, int], Link]:
    """The links in the file at `path`, by their ranks i < j.

    Raises:
        ConfigError: it cannot be read, or a line is none; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the file of links '{path}': {error}; give lines {WANTED}"
        ) from error
    found: dict[tuple[int, int], Link] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words:
            pair, link = _link(words, f"{path}:{number}", size)
            found[pair] = link
    return found


def _link(words: list[str], where: str, size: int) -> tuple[tuple[int, int], Link]:
    try:
        first, second, latency, gigabits = words
        i, j = sorted((int(first), int(second)))
        link = Link(float(latency), float(gigabits) * 1e9 / 8)
    except ValueError as error:
        raise ConfigError(
            f"{where}: a link is {WANTED}, got {' '.join(words)!r}"
        ) from error
    if not 0 <= i < j < size:
        raise ConfigError(
            f"{where}: a link joins two of the ranks 0..{size - 1}, got {i} and {j}"
        )
    return (i, j), link
