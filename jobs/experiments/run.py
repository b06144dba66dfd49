"""Run the experiments of a file, those that are missing, and compare them.

    python jobs/experiments/run.py FILE [--data-dir DIR] [--results DIR]
    python jobs/experiments/run.py FILE --print       what would run
    python jobs/experiments/run.py FILE --report      compare what is there
    python jobs/experiments/run.py FILE --submit      as Slurm job arrays

Each run has a folder in DIR (runs/experiments/NAME OF FILE); one that finished is not run
again, so that the same command goes on where it was interrupted. The report is in
DIR/report. matrix.py tells what a FILE may have.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "jobs" / "benchmarks"))  # how rows are spread and started

try:
    from launch import (
        SLURM,
        Cluster,
        command,
        launcher,
        read_cluster,
        shown,
        variables,
    )
    from matrix import Experiment, Matrix, read_matrix

    from acidmpi.errors import AcidError, ConfigError
    from acidmpi.report.runs import CONFIG, NOTES, SUMMARY, ranges
    from acidmpi.tasks.registry import task_defaults
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; activate the environment: source .venv/bin/activate")

RESULTS = Path("runs") / "experiments"
LOG = "log.txt"
SHAPED = str(ROOT / "jobs" / "local" / "shaped_network.sh")
SBATCH = str(ROOT / "jobs" / "slurm" / "experiments.sbatch")
INTERRUPTED_STATUS = 130

LAST_WORDS_SECONDS = 60.0
"""How long a run that is asked to end may take for it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when all is there, 1 when runs are missing, 2 for a mistake."""
    options = _parse(arguments)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    try:
        return Driver(read_matrix(options.file), options).act()
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        return INTERRUPTED_STATUS
    except (AcidError, OSError) as error:
        print(f"experiments: error: {error}", file=sys.stderr)
        return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--data-dir", type=Path, help="for tasks that bring no data")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where runs go")
    parser.add_argument("--hosts", type=Path, help="such as jobs/cluster.toml")
    parser.add_argument("--slurm", action="store_true", help="start ranks by srun")
    parser.add_argument(
        "--index", type=int, metavar="K", help="only run number K, from 0"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", action="store_true", help="only say what would run")
    what.add_argument("--report", action="store_true", help="only compare")
    what.add_argument("--submit", action="store_true", help="missing runs, by sbatch")
    return parser.parse_args(arguments)


class Driver:
    """The runs of a matrix and where they are.

    Args:
        matrix: what is to run.
        options: of the command line.
    """

    def __init__(self, matrix: Matrix, options: argparse.Namespace) -> None:
        self._matrix = matrix
        self._options = options
        self._results: Path = options.results or RESULTS / options.file.stem
        self._chosen = _chosen(matrix.experiments, options.index)
        self._check_data()

    def act(self) -> int:
        """Do what was asked; returns the exit status."""
        if self._options.submit:
            return self._submit()
        if not self._options.report:
            kind = launcher(self._options.slurm)
            cluster = read_cluster(self._options.hosts)
            self._run_all(kind, cluster)
        if self._options.print:
            return 0
        if self._options.index is None:
            self._report()
        return 1 if self._missing(self._chosen) else 0

    def _run_all(self, kind: str, cluster: Cluster) -> None:
        missing = self._missing(self._chosen)
        done = len(self._chosen) - len(missing)
        _say(f"{len(self._chosen)} runs, {done} done before")
        for number, experiment in enumerate(missing, 1):
            words = self._command(kind, cluster, experiment)
            if self._options.print:
                print(shown(kind, cluster, words))
                continue
            self._run(experiment, words, variables(kind, cluster))
            _say(
                f"[{number}/{len(missing)}] {experiment.name}: {self._told(experiment)}"
            )

    def _command(
        self, kind: str, cluster: Cluster, experiment: Experiment
    ) -> list[str]:
        folder = self._results / experiment.name
        needs_data = task_defaults(experiment.config.task).needs_data_dir
        data_dir = self._options.data_dir if needs_data else None
        arguments = experiment.arguments(folder, data_dir)
        if experiment.network is None:
            return command(kind, cluster, experiment.ranks, arguments)
        if kind == SLURM or cluster.hosts:
            raise ConfigError(
                f"a network of {experiment.network} can only be made on one machine; "
                "leave out --slurm and --hosts"
            )
        links = ["--links", str(experiment.ranks), experiment.network]
        return [SHAPED, *links, cluster.python, *arguments]

    def _run(
        self, experiment: Experiment, words: list[str], settings: dict[str, str]
    ) -> None:
        folder = self._results / experiment.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY).unlink(missing_ok=True)
        if any(each.network for each in self._matrix.experiments):
            network = experiment.network or "unshaped"
            (folder / NOTES).write_text(f'network = "{network}"\n')
        began = time.monotonic()
        with (folder / LOG).open("wb") as log:
            status = _status(words, {**os.environ, **settings}, log)
            seconds = time.monotonic() - began
            log.write(f"\nstatus {status} after {seconds:.0f} s\n".encode())

    def _told(self, experiment: Experiment) -> str:
        folder = self._results / experiment.name
        status = (folder / LOG).read_text(errors="replace").splitlines()[-1]
        if not _finished(folder):
            return f"FAILED, {status}; see {folder / LOG}"
        summary = json.loads((folder / SUMMARY).read_text())
        return f"{status}, test loss {summary['test_loss']:.4g}"

    def _report(self) -> None:
        from acidmpi.report.make import make_report

        folders = [self._results / each.name for each in self._matrix.experiments]
        there = [folder for folder in folders if (folder / CONFIG).exists()]
        lacking = [
            (str(f), f"failed, see {LOG}" if (f / LOG).exists() else "not run yet")
            for f in folders
            if f not in there
        ]
        if not there:
            raise ConfigError(f"{self._results} holds no run to compare yet")
        output = self._results / "report"
        made = make_report(there, self._matrix.report_options(output), lacking)
        for path, what in made.missing:
            _say(f"not finished: {path}: {what}")
        print(f"\n{made.table}\n{made.page}")

    def _submit(self) -> int:
        """One array for each number of ranks, of the chosen runs that are missing."""
        missing = {each.name for each in self._missing(self._chosen)}
        numbers: dict[int, list[int]] = {}
        for index, experiment in enumerate(self._matrix.experiments):
            if experiment.name in missing:
                numbers.setdefault(experiment.ranks, []).append(index)
        for ranks, indices in sorted(numbers.items()):
            array = ranges(indices).replace(" ", "")
            more = ["--data-dir", str(self._options.data_dir)]
            words = ["sbatch", f"--ntasks={ranks}", f"--array={array}", SBATCH]
            words += [str(self._options.file), "--results", str(self._results)]
            words += more if self._options.data_dir else []
            _say(" ".join(words))
            if subprocess.run(words, check=False).returncode != 0:
                return 1
        return 0

    def _missing(self, experiments: Sequence[Experiment]) -> list[Experiment]:
        return [e for e in experiments if not _finished(self._results / e.name)]

    def _check_data(self) -> None:
        """Say at once what every run would say."""
        for experiment in self._chosen:
            task = experiment.config.task
            needs = task_defaults(task).needs_data_dir and not self._options.report
            if needs and self._options.data_dir is None:
                raise ConfigError(f"task {task} needs data, got no --data-dir")


def _status(words: list[str], environment: dict[str, str], log: IO[bytes]) -> int:
    """Run a command to its end; when this one is to end first, ask it to end too."""
    with subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(LAST_WORDS_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _chosen(experiments: list[Experiment], index: int | None) -> list[Experiment]:
    if index is None:
        return experiments
    if not 0 <= index < len(experiments):
        raise ConfigError(
            f"--index must be from 0 to {len(experiments) - 1}, got {index}"
        )
    return [experiments[index]]


def _finished(folder: Path) -> bool:
    try:
        summary = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return False
    return summary.get("stop_reason") == "finished"


def _say(text: str) -> None:
    print(f"experiments: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
