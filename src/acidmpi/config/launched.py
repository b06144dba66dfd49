"""What a process knows of its job before MPI starts, and who of the job then speaks."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from typing import TextIO

RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
"""Where launchers leave a rank's number, for those who must not start MPI."""


def speaks() -> bool:
    """Whether this is rank 0, as far as the launcher's variables tell."""
    return next((os.environ[v] == "0" for v in RANK_VARIABLES if v in os.environ), True)


@contextmanager
def printed_once() -> Iterator[None]:
    """Let what the block prints, as `--help` does, be printed by one rank of the job."""
    with redirect_stdout(sys.stdout if speaks() else io.StringIO()):
        yield


def steady_output() -> None:
    """See that no command fails of what it prints, once the work itself is done.

    What the terminal's encoding lacks, such as ± and ≥, becomes a question mark, and
    without a standard output nothing is shown.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def status_of(main: Callable[[], int]) -> int:
    """Run a command; one line if nobody takes what it prints, as behind `| head`."""
    steady_output()
    try:
        status = main()
        sys.stdout.flush()
    except OSError as error:
        if _takes_a_line():
            raise
        text = f"error: standard output cannot be written: {error.strerror}"
        give_up(sys.stdout, text)
        return 1
    return status


def give_up(out: TextIO, text: str) -> None:
    """Say so to standard error; what `out` still holds, or is given, goes nowhere."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), out.fileno())
    print(f"acidmpi: {text}", file=sys.stderr)


def _takes_a_line() -> bool:
    """Whether standard output takes an empty one now; the error does not tell whose."""
    try:
        return os.write(sys.stdout.fileno(), b"\n") == 1
    except OSError:
        return False


def version_of(package: str) -> str:
    """The version of a package as installed, or a remark that it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
