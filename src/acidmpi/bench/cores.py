"""How far apart the cores of two ranks are: a word of shared memory, there and back.

Cores that share a cache pass it within some tens of nanoseconds, others take several
times as long, and a virtual machine may be moved from one kind of place to the other
while it runs. Python adds some hundred nanoseconds of its own.
"""

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi4py import MPI

from acidmpi.progress import available_cores

LAPS = 300


class SharedWord:
    """A number in memory that two ranks see.

    Args:
        words: the memory.
        rank: 0 begins each lap.
    """

    def __init__(self, words: memoryview, rank: int) -> None:
        self._words = words
        self._rank = rank
        self._lap = 0

    @property
    def value(self) -> int:
        """What stands there now."""
        return self._words[0]

    def run(self) -> None:
        """`LAPS` times there and back; both ranks must do it together."""
        words, end = self._words, self._lap + 2 * LAPS
        for lap in range(self._lap, end, 2):
            if self._rank == 0:
                words[0] = lap + 1
                while words[0] != lap + 2:
                    pass
            else:
                while words[0] != lap + 1:
                    pass
                words[0] = lap + 2
        self._lap = end


@contextmanager
def shared_word(comm: MPI.Comm) -> Iterator[SharedWord | None]:
    """A word that both ranks of `comm` see; None without a common machine of two cores."""
    places = comm.allgather((MPI.Get_processor_name(), available_cores() > 1))
    if len({host for host, _ in places}) > 1 or not all(room for _, room in places):
        yield None
        return
    with tempfile.NamedTemporaryFile(dir=_in_memory()) as own:
        own.truncate(mmap.PAGESIZE)
        path = Path(comm.bcast(own.name))
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        comm.Barrier()  # the file must live until both have it
    with memory, memoryview(memory).cast("q") as words:
        yield SharedWord(words, comm.rank)


def _in_memory() -> str | None:
    """A folder whose files never go to a disk, or the usual one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
