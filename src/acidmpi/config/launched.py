"""What a process knows of its job before MPI starts, and who of the job then speaks."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata

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


def version_of(package: str) -> str:
    """The version of a package as installed, or a remark that it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
