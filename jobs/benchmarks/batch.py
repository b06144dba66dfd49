"""Run a batch of benchmarks, one after the other, and put the results into a table.

    python jobs/benchmarks/batch.py FILE [--reduced] [--print] [--results DIR]
    python jobs/benchmarks/batch.py KEY=VALUE…      one run; what jobs/run.sh calls

FILE is a list of rows such as jobs/benchmarks/paper.toml; KEYs are `ranks` and the
options of `python -m acidmpi.bench iteration`, with underscores. A row whose result is
there already is not run again, so an interrupted batch goes on where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

try:
    from launch import Cluster, command, launcher, read_cluster, shown, variables
    from rows import Row, make_row, read_rows

    from acidmpi.errors import ConfigError
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; activate the environment: source .venv/bin/activate")

RESULTS = Path("runs") / "benchmarks"
ONE_RUN = "run"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the number of rows that failed decides the status."""
    options = _parse(arguments)
    try:
        rows, results = _rows(options)
        cluster = read_cluster(options.hosts)
        kind = launcher(options.slurm)
    except (ConfigError, OSError) as error:
        print(f"batch: error: {error}", file=sys.stderr)
        return 2
    if options.print:
        for row in rows:
            words = command(kind, cluster, row.ranks, row.arguments)
            print(shown(kind, cluster, words))
        return 0
    failed = [row for row in rows if not _run(kind, cluster, row, results)]
    text = table([r for row in rows if (r := _result(results, row))])
    print(text)
    results.mkdir(parents=True, exist_ok=True)
    (results / "table.md").write_text(text + "\n")
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", metavar="FILE or KEY=VALUE")
    parser.add_argument("--reduced", action="store_true", help="small models, 2 ranks")
    parser.add_argument("--print", action="store_true", help="only say what would run")
    parser.add_argument("--slurm", action="store_true", help="start ranks by srun")
    parser.add_argument("--hosts", type=Path, help="such as jobs/cluster.toml")
    parser.add_argument("--results", type=Path, help="a folder, by default below runs/")
    return parser.parse_args(arguments)


def _rows(options: argparse.Namespace) -> tuple[list[Row], Path]:
    if all("=" in word for word in options.what):
        values = dict(_pair(word) for word in options.what)
        results = options.results or RESULTS / time.strftime("%Y-%m-%d-%H%M%S")
        return [make_row(ONE_RUN, values, "command line")], results
    if len(options.what) > 1:
        raise ConfigError(f"give one FILE or KEY=VALUE pairs, got {options.what}")
    path = Path(options.what[0])
    folder = path.stem + ("-reduced" if options.reduced else "")
    return read_rows(path, options.reduced), options.results or RESULTS / folder


def _pair(word: str) -> tuple[str, Any]:
    """A key and its value: a number or a truth value where TOML would see one."""
    key, _, value = word.partition("=")
    try:
        return key, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key, value


def _run(kind: str, cluster: Cluster, row: Row, results: Path) -> bool:
    if _path(results, row).exists():
        print(f"batch: {row.name}: done before, {_path(results, row)}", flush=True)
        return True
    words = command(kind, cluster, row.ranks, row.arguments)
    print(f"batch: {row.name}: {shown(kind, cluster, words)}", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        words,
        env={**os.environ, **variables(kind, cluster)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    if done.returncode != 0:
        print(f"batch: {row.name}: FAILED, status {done.returncode}", flush=True)
        return False
    print(f"batch: {row.name}: {time.monotonic() - began:.0f} s", flush=True)
    _save(results, row, json.loads(done.stdout.splitlines()[-1]))
    return True


def _save(results: Path, row: Row, found: dict[str, Any]) -> None:
    """Whole or not at all: the file says that the row is done."""
    path = _path(results, row)
    results.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"row": row.described(), **found}, indent=1) + "\n")
    partial.replace(path)


def _result(results: Path, row: Row) -> dict[str, Any] | None:
    path = _path(results, row)
    return json.loads(path.read_text()) if path.exists() else None


def _path(results: Path, row: Row) -> Path:
    return results / f"{row.name}.json"


def table(found: list[dict[str, Any]]) -> str:
    """One line for each method of each row, in Markdown."""
    lines = [
        "| row | ranks | method | iteration, ms | ± (1.96 σ) | MB sent | beside ddp |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for result in found:
        figures = {figure["name"]: figure for figure in result["results"]}
        methods = [n.partition(", ")[2] for n in figures if n.startswith("iteration, ")]
        lines += [_line(result["row"], method, figures) for method in methods]
    return "\n".join(lines)


def _line(row: dict[str, Any], method: str, figures: dict[str, Any]) -> str:
    def of(name: str, key: str = "value", scale: float = 1.0) -> str:
        value = figures.get(name, {}).get(key)
        return "" if value is None else f"{value * scale:.4g}"

    cells = (
        row["name"],
        str(row["ranks"]),
        method,
        of(f"iteration, {method}"),
        of(f"spread (1.96 σ), {method}"),
        of(f"bytes sent per rank and iteration, {method}", scale=1e-6),
        of(f"communication, {method} beside ddp", key="ratio"),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
