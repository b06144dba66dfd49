"""Gradients in, means over all ranks out: what an optimizer needs of data parallelism.

Threads: everything is for the caller's thread, except `ready` and `fail`, which any
thread may call. With `progress="thread"` compression and messages run in a thread of
the averager's own, until `finish` takes them over: see `helm`. With `"inline"` they run
in the caller's, whenever it calls `ready` or `finish`.
"""

import math
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from mpi4py import MPI

from acidmpi.arrays.accelerator import Accelerator
from acidmpi.clocks import WallClock
from acidmpi.compression.protocol import Array, Compressor, Place, Reduction, Spec
from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import agreeing, check_same
from acidmpi.mpi.communicators import Communicators, duplicate, told_to_all
from acidmpi.mpi.library import mpi_library
from acidmpi.mpi.nodes import find_node
from acidmpi.mpi.threads import ProgressMode, check_thread_level
from acidmpi.pairing.wire import Wire
from acidmpi.parallel.agreement import check_complete, check_specs, describe_start
from acidmpi.parallel.buckets import make_buckets
from acidmpi.parallel.collectives import Collectives
from acidmpi.parallel.handover import Handover
from acidmpi.parallel.helm import Helm
from acidmpi.parallel.lanes import lane_of
from acidmpi.parallel.loop import HOT_SECONDS, AveragingLoop
from acidmpi.parallel.messages import Channel, Traffic
from acidmpi.parallel.statistics import ParallelStatistics
from acidmpi.progress.closing import Closing
from acidmpi.progress.drivers import PollingCaller, PollingThread
from acidmpi.transport.pieces import longest_of_all


class Averager(Closing):
    """Averages the gradients of all ranks, step after step; collective to make.

    Args:
        specs: the parameters, in the order of registration; buckets are made in reverse.
        compressor: how gradients become messages.
        comm: the caller's communicator; duplicated.
        bucket_bytes: largest bucket before compression; 0: one per parameter.
        seed: for what compressors draw alike on all ranks.
        progress: who advances communication, `thread` or `inline`.
        deadline_seconds: how long nothing may move while other ranks are waited for.
        accelerator: the device that gradients live on; None is host memory.

    Raises:
        ConfigError: an option or a parameter is not acceptable.
        DisagreementError: ranks differ on the parameters or the options.
        ThreadLevelError: MPI grants too little for `progress="thread"`.
        RemoteError: another rank cannot start.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        compressor: Compressor,
        comm: MPI.Comm,
        *,
        bucket_bytes: int = 25 << 20,
        seed: int = 0,
        progress: str = "thread",
        deadline_seconds: float = 300.0,
        accelerator: Accelerator | None = None,
    ) -> None:
        with told_to_all(comm):
            check_thread_level(cast(ProgressMode, progress))
            check_specs(specs)
        self.rank, self.size = comm.rank, comm.size
        self._compressor = compressor
        self._bucket_bytes = bucket_bytes
        self._seconds = deadline_seconds
        self._lane = lane_of(accelerator)
        self._owner = threading.get_ident()
        self._waiting_seconds = 0.0
        self._steps = 0
        self._closed = False
        self._comms = Communicators.open(comm, deadline_seconds, ["control"])
        self._stages: list[MPI.Comm] = []
        try:
            self._open(specs, seed, progress)
        except BaseException:
            self._free()
            raise
        self._driver.start()

    def _open(self, specs: Sequence[Spec], seed: int, progress: str) -> None:
        collective, seconds = self._comms.collective, self._seconds
        described = describe_start(specs, self._compressor, self._bucket_bytes, seed)
        check_same(collective, described, seconds)
        node = find_node(collective, seconds)
        longest = longest_of_all(node, mpi_library())
        with agreeing(collective, seconds):
            place = Place(self.rank, self.size, seed)
            self._reduction = self._compressor.start(specs, place)
            plans = self._plans(specs, self._reduction)
        name = self._comms.control.Get_name()
        for stage in range(self._reduction.stages):
            copy = duplicate(collective, f"{name}.{stage}", seconds)
            self._stages.append(copy)
        self._traffic = Traffic()
        self._handover = Handover(specs, plans[self._reduction.phase(0)])
        self._together = Collectives(collective, seconds, self._look)
        self._loop = AveragingLoop(
            reduction=self._reduction,
            plans=plans,
            channels=[
                self._lane.channel(Channel(stage, self._traffic, longest))
                for stage in self._stages
            ],
            wire=Wire(self._comms.control),
            closing=self._comms.control,
            handover=self._handover,
            lane=self._lane,
            clock=WallClock(),
            deadline_seconds=seconds,
            hot_seconds=HOT_SECONDS if node.ranks_per_core <= 1.0 else 0.0,
        )
        crowd = node.ranks_per_core
        self._helm = Helm(self._loop, crowd)
        self._driver = (
            PollingThread(self._helm, crowd, name)
            if progress == "thread"
            else PollingCaller(self._helm, crowd)
        )

    def _plans(self, specs: Sequence[Spec], reduction: Reduction) -> list[Any]:
        return [
            make_buckets(
                specs, partial(reduction.payload_bytes, phase=phase), self._bucket_bytes
            )
            for phase in range(reduction.phases)
        ]

    @property
    def step(self) -> int:
        """Steps finished so far; the number of the step at hand."""
        return self._handover.step

    @property
    def ready_count(self) -> int:
        """Gradients handed over in this step."""
        return self._handover.count

    @property
    def clean(self) -> bool:
        """Whether MPI can end in an orderly way: no operation was left pending."""
        return self._loop.clean

    def ready(self, index: int, gradient: Array) -> None:
        """Hand over a gradient that is final for this step; from any thread.

        It belongs to the averager until `finish`, which leaves the mean in it.

        Args:
            index: number of the parameter in `specs`.
            gradient: one-dimensional, contiguous, of the parameter's size and type.

        Raises:
            ConfigError: it does not fit, or came before; all ranks then fail.
            AcidError: this rank or another one has failed.
        """
        self._check_open()
        try:
            complete = self._handover.put(index, gradient, self._lane.mark())
        except ConfigError as error:
            self.fail(error)
            raise
        if complete:
            self._driver.wake()
        if threading.get_ident() == self._owner:
            self._driver.poll()

    def finish(self) -> None:
        """Wait until every gradient of this step holds the mean over ranks.

        Raises:
            ConfigError: a gradient has not been handed over; all ranks then fail.
            AcidError: this rank or another one has failed.
        """
        self._check_open()
        began = time.perf_counter()
        handover = self._handover
        try:
            handover.check()
            handover.check_all_here()
        except ConfigError as error:
            self.fail(error)
            raise
        with self._helm.taken() as caller:
            handover.awaited = True
            caller.wait(lambda: handover.over, math.inf)
            handover.awaited = False
            handover.check()
            self._lane.settle()
            self._loop.restart(handover.step + 1)
        self._steps += 1
        self._waiting_seconds += time.perf_counter() - began

    def vote(self, flag: bool) -> bool:
        """Whether any rank says yes (collective).

        Raises:
            AcidError: this rank or another one has failed.
        """
        self._look()
        return self._together.vote(flag)

    def broadcast(self, arrays: Sequence[Array]) -> None:
        """Copy rank 0's contiguous arrays into everyone's (collective).

        A device's go by way of host memory, and are waited for.

        Raises:
            AcidError: this rank or another one has failed.
        """
        self._look()
        with self._lane.calling():
            self._together.broadcast(arrays)

    def average(self, arrays: Sequence[Array]) -> None:
        """Replace contiguous arrays by their means over ranks, uncompressed (collective).

        Args:
            arrays: of float64, float32, float16, or uint16 that stands for bfloat16.

        Raises:
            AcidError: this rank or another one has failed.
        """
        self._look()
        with self._lane.calling():
            self._together.average(arrays)

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on later: between two steps, not within one."""
        self._check_between("state_dict()")
        with self._lane.calling():
            reduction = self._reduction.state()
        return {
            "step": self.step,
            "compressor": repr(self._compressor),
            "size": self.size,
            "rank": self.rank,
            "reduction": reduction,
        }

    def gather_state(self) -> list[dict[str, Any]]:
        """All ranks' `state_dict`, on every rank (collective)."""
        return self.gather(self.state_dict())

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, which can be pickled, by rank (collective).

        Raises:
            AcidError: this rank or another one has failed.
        """
        self._look()
        return self._together.gather(value)

    def load_state_dict(
        self, states: Sequence[dict[str, Any]] | dict[str, Any]
    ) -> None:
        """Go on from a saved state; every rank must do so, from the same save.

        Args:
            states: all ranks' dicts as from `gather_state`, of any number of ranks; or
                this rank's own, if it was saved by the same rank of as many. Ranks that
            load different saves average what does not belong together.

        Raises:
            ConfigError: they are of another compressor, do not fit, or are not those of
                all ranks of a save in order of rank.
        """
        self._check_between("load_state_dict()")
        if isinstance(states, dict):
            self._check_own(states)
            every = [states] * self.size
        else:
            every = list(states)
        for state in every:
            if state["compressor"] != repr(self._compressor):
                raise ConfigError(
                    "a state can be loaded by the compressor that saved it, which is "
                    f"{state['compressor']}, got {self._compressor!r}"
                )
        if not isinstance(states, dict):
            check_complete(every)
        with self._helm.taken(), self._lane.calling():
            self._reduction.load([state["reduction"] for state in every])
            self._loop.restart(every[0]["step"])

    def begin_at(self, step: int) -> None:
        """Count on from `step`, on all ranks alike: between two steps."""
        self._check_between("begin_at()")
        with self._helm.taken():
            self._loop.restart(step)

    def statistics(self) -> ParallelStatistics:
        """What has happened so far."""
        return ParallelStatistics(
            steps=self._steps,
            buckets=self._loop.buckets,
            messages=self._traffic.messages,
            bytes_sent=self._traffic.bytes_sent,
            seconds_compressing=self._loop.compressing_seconds,
            seconds_waiting=self._waiting_seconds,
        )

    def fail(self, error: BaseException) -> None:
        """This rank cannot go on: let every other rank raise `RemoteError`.

        From any thread; what has failed before counts. The averager is of no use then.
        """
        self._handover.fail(error)
        self._driver.wake()
        if threading.get_ident() == self._owner:
            self._driver.poll()

    def close(self, error: BaseException | None = None) -> None:
        """Leave between two steps; collective, and nothing is pending afterwards.

        Args:
            error: what ends this rank instead; the others then raise `RemoteError`.

        Raises:
            AcidError: another rank has failed, unless `error` is given.
        """
        if self._closed:
            return
        self._closed = True
        if error is not None:
            self.fail(error)
        self._handover.end()
        self._driver.finish()
        if self._loop.clean:
            self._free()
        if error is None:
            self._handover.check()

    def _look(self) -> None:
        self._check_open()
        self._driver.poll()
        self._handover.check()

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError(
                "an averager can be used until close(), got a call after it"
            )

    def _check_between(self, what: str) -> None:
        self._check_open()
        if self.ready_count:
            raise ConfigError(
                f"{what} must come between two steps, got it after {self.ready_count} "
                "gradients of a step; finish it by step() or synchronize() first"
            )

    def _check_own(self, state: dict[str, Any]) -> None:
        if (state["rank"], state["size"]) != (self.rank, self.size):
            raise ConfigError(
                f"one rank's state fits rank {state['rank']} of {state['size']} only, "
                f"this is rank {self.rank} of {self.size}; load the list of all ranks' "
                "states, as gather_state() returns it"
            )

    def _free(self) -> None:
        for comm in self._stages:
            comm.Free()
        self._comms.close()
