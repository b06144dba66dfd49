"""What the MPI library grants to threads, and what each driver of the loop needs."""

from typing import Literal

from mpi4py import MPI

from acidmpi.errors import ConfigError, ThreadLevelError

ProgressMode = Literal["thread", "inline"]

LEVELS = {
    MPI.THREAD_SINGLE: "MPI_THREAD_SINGLE",
    MPI.THREAD_FUNNELED: "MPI_THREAD_FUNNELED",
    MPI.THREAD_SERIALIZED: "MPI_THREAD_SERIALIZED",
    MPI.THREAD_MULTIPLE: "MPI_THREAD_MULTIPLE",
}


def thread_level() -> str:
    """Name of the level that MPI granted to this process."""
    return LEVELS[MPI.Query_thread()]


def check_thread_level(progress: ProgressMode) -> None:
    """Raise unless MPI grants what `progress` needs.

    A communication thread calls MPI while the caller may do so too, which only
    MPI_THREAD_MULTIPLE allows. Inline progress stays in the caller's thread.

    Raises:
        ThreadLevelError: `progress="thread"` below MPI_THREAD_MULTIPLE.
        ConfigError: neither of the two modes.
    """
    if progress not in ("thread", "inline"):
        raise ConfigError(f"progress must be 'thread' or 'inline', got {progress!r}")
    if progress == "thread" and MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise ThreadLevelError(
            "progress='thread' needs MPI_THREAD_MULTIPLE, this MPI was started with "
            f"{thread_level()}; use progress='inline' and call poll(), or start MPI with "
            "MPI_Init_thread(MPI_THREAD_MULTIPLE) (mpi4py.rc.thread_level = 'multiple')"
        )
