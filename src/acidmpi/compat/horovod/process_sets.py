"""There is one set of processes: all that `init` was called on."""

from collections.abc import Sequence
from typing import NoReturn

from acidmpi.compat.horovod.basics import is_initialized, rank, size
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.mpi.reductions import Comm

CURE = "split a communicator, and pass it to init() or use acidmpi's own API with it"


class ProcessSet:
    """Some of the processes; only `global_process_set` exists."""

    process_set_id: int | None = None

    def __init__(self, ranks_or_comm: Sequence[int] | Comm) -> None:
        del ranks_or_comm
        raise UnsupportedError("a process set of one's own", CURE)

    @property
    def ranks(self) -> list[int]:
        """All ranks; none before `init`."""
        return list(range(size())) if is_initialized() else []

    def size(self) -> int:
        """How many processes it has."""
        return size()

    def rank(self) -> int:
        """Number of this process in it."""
        return rank()

    def included(self) -> bool:
        """Whether this process is in it."""
        return is_initialized()


def add_process_set(process_set: ProcessSet | Sequence[int]) -> NoReturn:
    """Raise: there is only `global_process_set`.

    Raises:
        UnsupportedError: always.
    """
    del process_set
    raise UnsupportedError("add_process_set()", CURE)


def remove_process_set(process_set: ProcessSet) -> NoReturn:
    """Raise: there is only `global_process_set`.

    Raises:
        UnsupportedError: always.
    """
    del process_set
    raise UnsupportedError("remove_process_set()", CURE)


def check_global(process_set: ProcessSet) -> None:
    """Raise unless `process_set` is the only one there is.

    Raises:
        UnsupportedError: it is something else.
    """
    if process_set is not global_process_set:
        raise UnsupportedError(f"process_set={process_set!r}", CURE)


def _global() -> ProcessSet:
    everything = ProcessSet.__new__(ProcessSet)
    everything.process_set_id = 0
    return everything


global_process_set = _global()
"""All processes that `init` was called on."""
