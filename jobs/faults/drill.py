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
    from page import page
    from runs import Plan, run
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; activate the environment: source .venv/bin/activate")


def main() -> int:
    """Make all runs, and the page; 1 if a run did not end by itself."""
    chosen = parsed()
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


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the runs and their results")
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--runs", type=int, default=20, help="of each kind")
    parser.add_argument("--tasks", nargs="+", default=["quadratic", "digits"])
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
    chosen = parser.parse_args()
    chosen.options = tuple(shlex.split(chosen.options))
    chosen.folder = chosen.folder.resolve()
    chosen.kills = chosen.kills or [1, chosen.ranks // 4, chosen.ranks // 2]
    return chosen


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
        self.lines = [json.loads(line) for line in kept]

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
        """How long an undisturbed run works, in the median."""
        return statistics.median(
            line["work_seconds"]
            for line in self.lines
            if line["task"] == task
            and line["ranks"] == ranks
            and line["tolerant"]
            and not line["kills"]
            and line["work_seconds"]
        )


if __name__ == "__main__":
    raise SystemExit(main())
