"""A report from run folders: read, compare, draw, write."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acidmpi.errors import DataError
from acidmpi.figures.canvas import require_matplotlib, save
from acidmpi.report.groups import Group, common_options, make_groups
from acidmpi.report.options import ReportOptions
from acidmpi.report.page import Content, render
from acidmpi.report.pictures import NAMES, make_pictures
from acidmpi.report.runs import Run, find_runs, ranges, read_run
from acidmpi.report.table import Table, columns, make_table, markdown

PAGE, TABLE = "report.html", "table.md"


@dataclass(frozen=True)
class Report:
    """What was made."""

    page: Path
    table: str
    missing: list[tuple[str, str]]
    """Runs that are not finished, and what they lack."""


def make_report(
    paths: Sequence[Path],
    options: ReportOptions,
    missing: Sequence[tuple[str, str]] = (),
    told: Callable[[str], None] = lambda text: None,
) -> Report:
    """Read the runs at `paths` and write a report on them.

    Args:
        paths: run folders, or folders of them.
        options: where to, and what it is to have.
        missing: runs that should be there but have not begun, and why.
        told: is given a line for people now and then.

    Raises:
        ConfigError: there are no runs, they cannot be compared, or there is no matplotlib.
        DataError: a folder cannot be read, or the report cannot be written.
    """
    require_matplotlib()
    runs = []
    for path in find_runs(paths):
        run = read_run(path)
        told(f"{path}: {_records(run)} records of {len(run.ranks)} ranks")
        runs.append(run)
    groups = make_groups(runs)
    lacking = [(str(r.path), r.missing) for r in runs if not r.finished] + list(missing)
    content = _content(runs, groups, lacking, options)
    _write(content, options.output)
    return Report(options.output / PAGE, markdown(content.comparison), lacking)


def _content(
    runs: Sequence[Run],
    groups: Sequence[Group],
    missing: Sequence[tuple[str, str]],
    options: ReportOptions,
) -> Content:
    asked = columns(options.target_loss, options.target_accuracy)
    finished = sum(run.finished for run in runs)
    return Content(
        title=options.title,
        intro=f"{len(runs)} runs of {len(groups)} kinds, {finished} finished.",
        missing=missing,
        comparison=make_table(groups, asked),
        columns=asked,
        pictures=list(make_pictures(groups)),
        runs=_run_table(groups),
        common=common_options(runs),
        versions=_versions(runs),
    )


def _write(content: Content, folder: Path) -> None:
    """Pictures first: the page is there when all of it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in list(_old_pictures(folder)):
            old.unlink()
    except OSError as error:
        raise DataError(
            f"the report cannot be written to {folder}: {error.strerror}; choose another "
            "folder with --output"
        ) from error
    for picture in content.pictures:
        save(picture.png, folder / f"{picture.name}.png")
    _put(folder / TABLE, markdown(content.comparison))
    _put(folder / PAGE, render(content))


def _old_pictures(folder: Path) -> Iterator[Path]:
    """Those of an earlier report; other pictures in the folder are left alone."""
    for name in NAMES:
        yield from folder.glob(f"{name}.png")
        yield from folder.glob(f"{name}-[0-9]*.png")


def _put(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}; free space or choose another "
            "folder with --output"
        ) from error


def _run_table(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        for run in group.runs:
            deaths = run.summary.get("dead_ranks") or []
            dead = ranges([death["rank"] for death in deaths])
            state = run.missing or "finished"
            rows.append(
                [
                    str(run.path),
                    group.label,
                    state + (f"; dead ranks {dead}" if dead else ""),
                    str(run.seed),
                    str(run.size),
                    str(sum(rank.gradients for rank in run.ranks.values())),
                    f"{run.train_seconds:.1f}",
                ]
            )
    header = ["folder", "kind", "state", "seed", "ranks", "gradients", "seconds"]
    return Table(header, rows, 3)


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Of everything, all that occur."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, version in (run.summary.get("versions") or {}).items():
            found.setdefault(str(name), {})[str(version)] = None
        if run.summary.get("mpi_library"):
            found.setdefault("MPI", {})[str(run.summary["mpi_library"])] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def _records(run: Run) -> int:
    return sum(rank.records for rank in run.ranks.values())
