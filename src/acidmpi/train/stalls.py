"""Shows who waits for whom: on standard error, and in `stalls.json` of the run's folder.

Only the rank that is to show a stall is called, usually the lowest one that speaks. Files
and terminals may be slow, so they are written in a thread of their own.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from acidmpi.telemetry.stalls import Picture

SCHEMA = 1
"""Version of the format."""


class StallTeller:
    """Writes pictures down, one after the other.

    Args:
        path: the file, which may have pictures of other ranks.
        say: prints a text; standard error by default.
    """

    def __init__(self, path: Path, say: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._say = say or _print
        self._lock = Lock()

    def __call__(self, picture: Picture) -> None:
        """Show `picture`; returns at once."""
        told = {"unix_seconds": round(time.time(), 3), **picture.to_json()}
        lines = [f"acidmpi: stall: {picture.lines()[0]}", *picture.lines()[1:]]
        action = (told, "\n".join(lines))
        Thread(
            target=self._show, args=action, name="acidmpi-stall", daemon=True
        ).start()

    def _show(self, told: dict[str, Any], text: str) -> None:
        with self._lock:
            self._say(text)
            try:
                self._append(told)
            except OSError as error:
                self._say(f"acidmpi: {self._path} cannot be written: {error.strerror}")

    def _append(self, told: dict[str, Any]) -> None:
        """Put the file with one more picture in the place of the old one."""
        stalls = [*self._read(), told]
        beside = self._path.with_name(f".{self._path.name}")
        content = {"schema": SCHEMA, "stalls": stalls}
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(self._path)

    def _read(self) -> list[Any]:
        """What is there: another rank may have been the one to show before."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return list(found["stalls"])
        except (OSError, ValueError, KeyError, TypeError):
            return []


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
