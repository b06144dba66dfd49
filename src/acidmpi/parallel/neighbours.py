"""Averages with neighbours, one after every step, made while the caller computes.

The caller's arrays are copied when a step begins; copies travel and are averaged, and are
written back when it is over. So the caller may read its arrays meanwhile, and what a
neighbour receives is one state of them. The messages, the thread, deadlines and the way a
failure reaches every rank are those of `Averager`.

The arrays may lie on a device; then copies, messages' memory and means do, too.

Memory: one copy of the arrays, and one for each neighbour of a step.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.arrays.accelerator import Accelerator, here
from acidmpi.arrays.flat import chunks
from acidmpi.compression.protocol import Array, Spec
from acidmpi.mpi.communicators import told_to_all
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.mixing import Meeting, NeighbourMean
from acidmpi.parallel.statistics import ParallelStatistics
from acidmpi.progress.closing import Closing
from acidmpi.topology.rounds import make_rounds

CHUNK_BYTES = 4 << 20
"""Arrays travel in pieces of at most this size."""


class NeighbourAverager(Closing):
    """Averages arrays with those of neighbours, a step at a time; collective to make.

    For the caller's thread. Each step is `begin()`, any work that leaves the arrays
    alone, `finish()`; on every rank as often.

    Args:
        arrays: one-dimensional and contiguous; float64, float32, float16, or uint16 that
            stands for bfloat16. Changed in place by `finish`.
        comm: the caller's communicator; duplicated.
        topology: `one-peer-exponential`, or whatever `make_topology` takes.
        seed: for random graphs.
        progress: who advances communication, `thread` or `inline`.
        deadline_seconds: how long nothing may move while other ranks are waited for.
        accelerator: the device that holds the arrays; None is host memory.

    Raises:
        ConfigError: an option is not acceptable.
        DisagreementError: ranks differ on the arrays or on the graph.
        RemoteError: another rank cannot start.
        ThreadLevelError: MPI grants too little for `progress="thread"`.
        TopologyError: there is no such graph over so many ranks.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        comm: MPI.Comm,
        *,
        topology: Any,
        seed: int = 0,
        progress: str = "thread",
        deadline_seconds: float = 300.0,
        accelerator: Accelerator | None = None,
    ) -> None:
        with told_to_all(comm):
            rounds = make_rounds(topology, comm.rank, comm.size, seed)
        self.meeting = Meeting()
        """The latest step's."""
        self._arrays = list(arrays)
        self._accelerator = accelerator
        self._copies = self._memory()
        self._chunks = [
            self._copies[chunk.buffer][chunk.start : chunk.stop]
            for chunk in chunks(self._copies, CHUNK_BYTES)
        ]
        self._averager = Averager(
            [Spec(chunk.shape, chunk.dtype) for chunk in self._chunks],
            NeighbourMean(rounds, self.meeting),
            comm,
            bucket_bytes=0,
            seed=seed,
            progress=progress,
            deadline_seconds=deadline_seconds,
            accelerator=accelerator,
        )

    @property
    def clean(self) -> bool:
        """Whether MPI can end in an orderly way: no operation was left pending."""
        return self._averager.clean

    @property
    def bytes_each(self) -> int:
        """Bytes that go to each target in a step."""
        return sum(x.nbytes for x in self._copies)

    def begin_at(self, step: int) -> None:
        """Count on from `step`, on all ranks alike: graphs change from step to step."""
        self._averager.begin_at(step)

    def begin(self) -> None:
        """Send the arrays as they are now; from here to `finish` they must not change.

        Raises:
            AcidError: this rank or another one has failed.
        """
        with here(self._accelerator):
            for x, copy in zip(self._arrays, self._copies, strict=True):
                copy[:] = x
        # Buckets are made from behind: the first to be complete is the first to go.
        for index in reversed(range(len(self._chunks))):
            self._averager.ready(index, self._chunks[index])

    def finish(self) -> None:
        """Wait for the neighbours and write the means into the arrays.

        Raises:
            AcidError: this rank or another one has failed, or the deadline has passed.
        """
        self._averager.finish()
        with here(self._accelerator):
            for x, copy in zip(self._arrays, self._copies, strict=True):
                x[:] = copy

    def _memory(self) -> list[Array]:
        """For copies, beside the arrays."""
        if self._accelerator is None:
            return [np.empty_like(x) for x in self._arrays]
        with here(self._accelerator):
            return [self._accelerator.empty(x.size, x.dtype) for x in self._arrays]

    def statistics(self) -> ParallelStatistics:
        """What has happened so far."""
        return self._averager.statistics()

    def close(self, error: BaseException | None = None) -> None:
        """Leave between two steps; see `Averager.close`."""
        self._averager.close(error)
