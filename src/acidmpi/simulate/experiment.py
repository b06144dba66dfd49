"""What experiments share: runs over seeds, and results as a table, a line and a file."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from acidmpi.config.files import to_toml
from acidmpi.config.simulate import SimulateConfig
from acidmpi.errors import DataError
from acidmpi.simulate.course import graph_of, simulate
from acidmpi.simulate.outcome import Outcome

SCHEMA = 1
"""Version of the results' format, the one of the benchmarks."""


@dataclass(frozen=True)
class Result:
    """One number of an experiment."""

    name: str
    value: float | None
    unit: str
    limit: float | None = None
    """What it is compared with, where there is such a number."""

    @property
    def ratio(self) -> float | None:
        """The value over what it is compared with."""
        if self.value is None or not self.limit:
            return None
        return self.value / self.limit


def repeat(config: SimulateConfig, seeds: int) -> list[Outcome]:
    """Runs of `config` with so many seeds in a row; nothing is written."""
    graph = graph_of(config)
    return [
        simulate(config, seed, graph)
        for seed in range(config.seed, config.seed + seeds)
    ]


def report(
    name: str, options: object, results: Sequence[Result], out: TextIO, to: Path | None
) -> None:
    """Print all results as one JSON object on one line, and keep it.

    Args:
        name: of the experiment.
        options: its configuration.
        results: the numbers.
        out: where to print.
        to: a folder for NAME.json; None: it is not kept.

    Raises:
        DataError: the folder cannot be written.
    """
    line = json.dumps(
        {
            "schema": SCHEMA,
            "experiment": name,
            "command": f"python -m acidmpi.simulate {name}",
            "options": to_toml(options).splitlines(),
            "results": [{**asdict(r), "ratio": r.ratio} for r in results],
        }
    )
    if to is not None:
        _keep(to, name, line)
    print(line, file=out, flush=True)


def _keep(folder: Path, name: str, line: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(line + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"results cannot be written to {shlex.quote(str(folder))}: {error.strerror}; "
            "choose another folder with --output"
        ) from error
