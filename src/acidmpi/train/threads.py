"""How many threads a rank computes with, set before the libraries that use it load."""

import os
from collections.abc import MutableMapping

VARIABLE = "OMP_NUM_THREADS"
"""Read by torch and by what it computes with, when they are first loaded."""


def threads_per_rank(cores: int, ranks: int) -> int:
    """A fair share of the machine's `cores` for each of its `ranks`, at least one."""
    return max(1, cores // ranks)


def limit_threads(
    threads: int, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Have libraries loaded from now on use `threads`, unless the user has chosen."""
    environment.setdefault(VARIABLE, str(threads))
