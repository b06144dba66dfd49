"""One rank of a watched test run: `python rank.py FOLDER pytest-arguments…`.

Tells the launcher through files in FOLDER where this rank is:
- `rank-N.json`: test, phase, since when, limit, and at the end pytest's status;
- `rank-N.failures`: each failure as soon as it is known;
- `rank-N.stacks`: the stacks of all threads, written when the launcher asks;
- `rank-N.out`: output; rank 0 writes to the terminal instead.
"""

import faulthandler
import json
import os
import sys
import time
from pathlib import Path

import pytest

from support.watch import STACKS_SIGNAL, START_SECONDS

RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")


class Progress:
    """A pytest plugin that writes down where this rank is."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = folder / f"rank-{rank}.json"
        self._failures = folder / f"rank-{rank}.failures"
        self._state = {"rank": rank, "pid": os.getpid()}
        self.enter("starting", "importing and collecting", limit=START_SECONDS)

    def enter(self, test: str, phase: str, **more: object) -> None:
        """Note that another test, or another part of the run, begins."""
        self._state |= {"test": test, "since": time.monotonic()}
        self._write(phase=phase, **{"limit": None, "failed_at": None} | more)

    def _write(self, **changes: object) -> None:
        self._state |= changes
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(self._state))
        draft.replace(self._file)

    def _fail(self, test: str, text: str) -> None:
        with self._failures.open("a") as file:
            file.write(f"{test}\n{text}\n")
        if self._state["failed_at"] is None:
            self._write(failed_at=time.monotonic())

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "limit(seconds): may take that long")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.enter(nodeid, "setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        marker = item.get_closest_marker("limit")
        self._write(limit=marker.args[0] if marker else None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        self._write(phase="call")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        self._write(phase="teardown")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.enter("between tests", f"after {nodeid}", limit=START_SECONDS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._fail(f"{report.nodeid} ({report.when})", report.longreprtext)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._fail(f"{report.nodeid} (collecting)", report.longreprtext)


def own_rank() -> int:
    """The rank that the launcher of whichever MPI gave to this process."""
    return next((int(os.environ[v]) for v in RANK_VARIABLES if v in os.environ), 0)


def redirect(output: Path) -> None:
    """Send standard output and error to a file, on the level of file descriptors."""
    with output.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def main() -> None:
    """Run pytest; its status goes into a file.

    The process itself ends with 0: mpiexec would kill the other ranks, still busy
    printing their own failures, as soon as one ends otherwise.
    """
    folder, rank = Path(sys.argv[1]), own_rank()
    if rank:
        redirect(folder / f"rank-{rank}.out")
    # Left open: the signal may come as late as in MPI_Finalize.
    stacks = (folder / f"rank-{rank}.stacks").open("w")
    faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True)
    progress = Progress(folder, rank)
    temporary = f"--basetemp={folder / f'tmp-{rank}'}"
    # What MPI says when it ends this process must not wait in a file of pytest's.
    own = ["--with-mpi", "--capture=sys", "-p", "no:cacheprovider", temporary]
    arguments = [*own, *sys.argv[2:]]
    status = pytest.main(arguments, plugins=[progress])
    progress.enter("leaving", "finalising MPI", limit=START_SECONDS, status=int(status))


if __name__ == "__main__":
    main()
