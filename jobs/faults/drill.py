"""Kill ranks at random moments, many times, and write what became of the runs.

    python jobs/faults/drill.py --ranks 16 --runs 20 drills/ --page docs/benchmarks/PAGE.md

Needs an MPI that survives deaths (Open MPI with ULFM). For each task it first makes
undisturbed runs over seeds, in turn with and without --fault-tolerant, then kills 1, a
quarter and half of the ranks. Each run is a line of `drills/results.jsonl`; runs that are
there are not made again, so a drill that was cut short goes on where it was. With
--at-start there are no undisturbed runs.
"""

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path

try:
    from checks import check
    from page import page
    from runs import Plan, run

    from acidmpi.config.command_line import Parser, make_parser, parse
    from acidmpi.config.options import above, at_least
    from acidmpi.config.train import TrainConfig
    from acidmpi.errors import AcidError, ConfigError, DataError
    from acidmpi.tasks.registry import TASK_NAMES
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; activate the environment: source .venv/bin/activate")


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when all runs ended, 1 when one did not, 2 for a mistake."""
    try:
        return drill(checked(parsed(arguments)))
    except (AcidError, OSError) as error:
        print(f"drill: error: {error}", file=sys.stderr)
        return 2


def drill(chosen: argparse.Namespace) -> int:
    """Make all runs, and the page; 1 if a run did not end by itself."""
    results = Results(chosen.folder)
    for task in chosen.tasks:
        window = 0.0
        if not chosen.at_start:
            for plan in calm_plans(chosen, task):
                results.make(plan, chosen.limit)
            window = results.work_seconds(task, chosen.ranks)
        for plan in drills(chosen, task, window):
            results.make(plan, chosen.limit)
    text = page(results.lines, chosen.ranks)
    print(text)
    if chosen.page:
        chosen.page.write_text(text)
    return int(any(line["status"] is None for line in results.lines))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the runs and their results")
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--runs", type=int, default=20, help="of each kind")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASK_NAMES, default=["quadratic", "digits"]
    )
    parser.add_argument(
        "--kills", type=int, nargs="+", help="by default 1, a quarter, half"
    )
    parser.add_argument(
        "--at-start",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="kill so many seconds after all processes are there, instead of at work",
    )
    parser.add_argument("--limit", type=float, default=600, help="seconds of one run")
    parser.add_argument(
        "--options", default="", help='further ones of the trainer, as "--epochs 2"'
    )
    parser.add_argument(
        "--only-tolerant",
        action="store_true",
        help="leave out the undisturbed runs without --fault-tolerant, and so its cost",
    )
    parser.add_argument("--page", type=Path, help="where the table goes")
    return parser.parse_args(arguments)


def checked(chosen: argparse.Namespace) -> argparse.Namespace:
    """The options, those complete that were left out.

    Raises:
        ConfigError: one cannot be.
    """
    few = {"ranks": at_least(2), "runs": at_least(1), "limit": above(0)}
    check(chosen, {**few, "at_start": at_least(0)})
    check(chosen, {"kills": at_least(1, below=chosen.ranks)})
    if chosen.at_start and chosen.at_start[0] > chosen.at_start[1]:
        raise ConfigError("--at-start must be LOW HIGH, got a HIGH below LOW")
    check_page(chosen.page)
    chosen.options = trainer_options(chosen.options, chosen.tasks)
    chosen.folder = chosen.folder.resolve()
    shares = {1, chosen.ranks // 4, chosen.ranks // 2} - {0}
    chosen.kills = chosen.kills or sorted(shares)
    return chosen


def check_page(page: Path | None) -> None:
    """Raise where the page could not be written at the end of it all."""
    if page and (page.is_dir() or not page.resolve().parent.is_dir()):
        raise ConfigError(
            f"--page must be a file in a folder that is there, got {page}"
        )


def trainer_options(text: str, tasks: list[str]) -> tuple[str, ...]:
    """The words of --options, which the trainer takes with each task."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--options cannot be read: {error}") from error
    for task in tasks:
        parser = make_parser(TrainConfig, "python -m acidmpi.train", "", "")
        parse(parser, TrainConfig, ["--task", task, *words])
    return tuple(words)


def calm_plans(chosen, task):
    """Undisturbed runs, in turn with and without fault tolerance."""
    ways = (True,) if chosen.only_tolerant else (True, False)
    for seed in range(chosen.runs):
        for tolerant in ways:
            yield Plan(
                task=task,
                ranks=chosen.ranks,
                seed=seed,
                tolerant=tolerant,
                options=chosen.options,
            )


def drills(chosen, task, window):
    """Runs in which ranks die: while there is work, or while they make ready."""
    start = tuple(chosen.at_start) if chosen.at_start else None
    for kills in chosen.kills:
        for seed in range(chosen.runs):
            yield Plan(
                task=task,
                ranks=chosen.ranks,
                seed=seed,
                kills=kills,
                window_seconds=window,
                start_seconds=start,
                options=chosen.options,
            )


class Results:
    """What all runs came to, in memory and in a file.

    Args:
        folder: where the file and the runs' folders are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "results.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = self._path.read_text().splitlines() if self._path.exists() else []
        try:
            self.lines = [json.loads(line) for line in kept]
        except ValueError as error:
            raise DataError(
                f"{self._path} must have a record in each line ({error}); remove the "
                "line that has none"
            ) from error

    def make(self, plan: Plan, limit: float) -> None:
        """Make this run, unless it has been made."""
        if any(line["name"] == plan.name for line in self.lines):
            return
        line = run(plan, self._folder / plan.name, limit)
        self.lines.append(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{plan.name}: status {line['status']}, {line['seconds']:.1f} s, killed "
            f"{sorted(line['killed'])}",
            flush=True,
        )

    def work_seconds(self, task: str, ranks: int) -> float:
        """How long an undisturbed run works, in the median.

        Raises:
            DataError: none has worked.
        """
        found = [
            line["work_seconds"]
            for line in self.lines
            if line["task"] == task
            and line["ranks"] == ranks
            and line["tolerant"]
            and not line["kills"]
            and line["work_seconds"]
        ]
        if not found:
            log = self._folder / f"{task}-{ranks}-calm-0.log"
            raise DataError(f"no undisturbed run of {task} came to work; see {log}")
        return statistics.median(found)


if __name__ == "__main__":
    raise SystemExit(main())
