"""The torch-free core of a worker: builds a rank's parts, runs it, and ends it.

One engine belongs to the caller's thread. Its communication loop belongs to the driver;
the two meet in the `Ledger` and the `RankState`, each with a lock of its own.

Life: making it (collective), any number of `gradient` calls, `close` (collective, but
each rank comes when it likes: one that leaves early answers until all have left).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import ConfigError
from acidmpi.faults.drill import Drill
from acidmpi.faults.plan import Plan
from acidmpi.mpi.beginning import whole_start
from acidmpi.mpi.collectives import agreeing, check_same
from acidmpi.mpi.communicators import Communicators, told_to_all
from acidmpi.mpi.nodes import find_node
from acidmpi.mpi.reductions import Comm
from acidmpi.mpi.survival import check_survivable
from acidmpi.mpi.threads import check_thread_level
from acidmpi.worker.assembly import Parts, assemble, shared_topology
from acidmpi.worker.averaging import Average
from acidmpi.worker.closing import average_survivors, closed_on_error, keep_last
from acidmpi.worker.final import (
    Spread,
    average_arrays,
    average_state,
    broadcast_arrays,
    mean,
)
from acidmpi.worker.keeping import Keeping
from acidmpi.worker.ledger import INTERRUPTED
from acidmpi.worker.membership import Death
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.place import find_place
from acidmpi.worker.statistics import WorkerStatistics

Array = NDArray[Any]


class Engine:
    """One rank at work.

    Args:
        arrays: flat buffers that hold x; changed in place.
        comm: the caller's communicator; duplicated.
        options: the caller's choices.
        signature: describes the arrays; ranks must agree on it.
        rules: hyper-parameters, one of each kind that will be applied.
        common: further arrays that rank 0 hands out at the start.
        metrics: a writer of records, or None.
        keeping: checkpoints, or None for none.

    Raises:
        ConfigError: an option or the communicator is not acceptable.
        DiedAtStart: with `fault_tolerant`; on all that live, and they may begin again.
        DisagreementError: ranks differ on the arrays or the options.
        ThreadLevelError: MPI grants too little for `progress="thread"`.
        TopologyError: the graph does not fit.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        comm: Comm,
        options: WorkerOptions,
        *,
        signature: dict[str, str],
        rules: Sequence[Any],
        common: Sequence[Array] = (),
        metrics: Any = None,
        keeping: Keeping | None = None,
    ) -> None:
        mortal = options.fault_tolerant
        with told_to_all(comm):
            check_thread_level(options.progress)
            if mortal:
                check_survivable()
            self.rank, self.size = comm.rank, comm.size
            plan = Plan.of(options.fault)
            self.drill = Drill(plan, self.rank, self.size, options.seed)
            """What is to go wrong on this rank, usually nothing."""
        self.options, self._seconds = options, options.deadline_seconds
        self._spread, self._drift = Spread(math.nan, math.nan), math.nan
        self._reason, self._closed = "", False
        self.told = True
        """False after an error that only this rank knows of, so that others wait."""
        self._keeping = keeping
        if keeping is not None:
            keeping.begin()
            self.drill.attach(keeping.keeper, "_write", "checkpoint")
        with whole_start(comm, "the start", self._seconds, mortal=mortal):
            self._comms = Communicators.open(comm, self._seconds, mortal=mortal)
            try:
                self._parts = self._open(arrays, signature, rules, common, metrics)
            except BaseException:
                self._close_communicators()
                raise
        self.drill.attach(self, "gradient", "gradient")
        self.drill.start()
        self._parts.driver.start()
        with closed_on_error(self.close):
            self._catch_up(self._parts.ledger.gradients + 1.0)

    def _open(
        self,
        arrays: Sequence[Array],
        signature: dict[str, str],
        rules: Sequence[Any],
        common: Sequence[Array],
        metrics: Any,
    ) -> Parts:
        collective, phase = self._comms.collective, self.drill.phase
        options = self.options
        phase("agree")
        check_same(collective, {**options.described(), **signature}, self._seconds)
        phase("topology")
        graph = shared_topology(collective, options)
        node = find_node(collective, self._seconds)
        phase("kernels")
        place = find_place(collective, node, options, arrays, rules)
        phase("parameters")
        broadcast_arrays(collective, common, self._seconds)
        phase("assemble")
        with agreeing(collective, self._seconds):
            return assemble(
                self._comms,
                arrays,
                options,
                graph,
                (node, place),
                metrics,
                self.drill,
                self._keeping,
            )

    @property
    def parts(self) -> Parts:
        """What this rank consists of; for tests, benchmarks and telemetry."""
        return self._parts

    @property
    def finished(self) -> bool:
        """Whether this rank should compute no more gradients."""
        quota = self._parts.quota
        return self._parts.ledger.stopped or (
            quota is not None and self._parts.ledger.gradients >= quota
        )

    @property
    def progress(self) -> float:
        """Share of the goal done by all ranks, as forecast, in [0, 1]; 0 without a goal."""
        goal, ledger = self.options.total_gradients, self._parts.ledger
        if goal is None:
            return 0.0
        if self._parts.quota is not None:
            return min(1.0, ledger.gradients / self._parts.quota)
        return min(1.0, self._parts.pulse.forecast.total / goal)

    @property
    def total_gradients(self) -> int:
        """Gradients of all ranks, as far as this one knows."""
        return self._parts.ledger.total_gradients

    def next_gradient(self) -> int:
        """Number of the gradient that this rank makes now, counted from 1."""
        return self._parts.ledger.gradients + 1

    @property
    def clean(self) -> bool:
        """Whether MPI can end in an orderly way: no operation was left pending."""
        return self._parts.loop.clean

    @property
    def stop_reason(self) -> str:
        """finished, interrupted or failed; once closed, the same on all ranks."""
        return self._reason or self._parts.ledger.stop_reason

    def gradient(
        self, event: Callable[[], None], loss: float | None, samples: int, lr: float
    ) -> None:
        """One gradient event.

        Args:
            event: applies the update to the state.
            loss: reported with it, or None.
            samples: how many went into it.
            lr: learning rate, for the record.

        Raises:
            AcidError: this rank's communication failed, or another rank did.
            ConfigError: it comes after `close`.
        """
        parts = self._parts
        self.check_open()
        self.check()
        if self.options.logical:
            parts.units.move_to(parts.ledger.gradients + 1.0)
        with parts.state.lock:
            event()
            parts.ledger.count_gradient(loss, samples)
            if self._keeping is not None:
                self._keeping.publish(loss, parts.state)
        parts.units.count_gradient()
        parts.recorder.gradient(loss, lr)
        self._after_gradient()

    def poll(self) -> None:
        """Advance communication, if the caller has to; raise what went wrong."""
        self._parts.driver.poll()
        self.check()

    def check_open(self) -> None:
        """Raise `ConfigError` after `close`: nobody would hear of a change."""
        if self._closed:
            raise ConfigError(
                "gradients must come before close(), got one after it; from there on "
                "the result is the caller's own"
            )

    def check(self) -> None:
        """Raise the first failure of any rank, once it is known here."""
        failure = self._parts.ledger.failure
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ask all ranks to stop; each leaves its loop by itself."""
        self._parts.ledger.raise_flags(INTERRUPTED)
        self._parts.driver.wake()

    def take_average(self) -> Average | None:
        """The newest average not yet taken; on rank 0, or its successor."""
        average: Average | None = self._parts.ledger.take_average()
        return average

    def close(
        self, error: BaseException | None = None, buffers: Sequence[Array] = ()
    ) -> None:
        """Leave: answer until all have left, then take the global average.

        Args:
            error: what ends this rank's computation, if something does. All ranks then
                end without an average; an interruption (`KeyboardInterrupt`) is an
                orderly end.
            buffers: further float arrays to average.

        Raises:
            AcidError: the first failure of any rank, unless `error` is given.
        """
        if self._closed:
            return
        self._closed = True
        self._leave(error)
        if self._parts.ledger.failure is None:
            self._end_together(buffers)
        if self.clean:
            self._close_communicators()
        if error is None:
            self.check()

    @property
    def leads(self) -> bool:
        """Whether this rank does for all what only one can: rank 0, or its successor."""
        survival = self._parts.survival
        return self.rank == 0 if survival is None else survival.membership.leads

    @property
    def deaths(self) -> tuple[Death, ...]:
        """What this rank knows of those who have died."""
        survival = self._parts.survival
        if survival is None:
            return ()
        known = self._parts.ledger.known  # more than when the news came
        return tuple(
            replace(death, gradients=known(death.rank))
            for death in survival.membership.deaths
        )

    def statistics(self) -> WorkerStatistics:
        """What has happened so far."""
        p, beat, spread = self._parts, self._parts.pulse.beat, self._spread
        exact = not math.isnan(spread.consensus_distance)
        exchanges = p.tally.exchanges
        return WorkerStatistics(
            gradients=p.ledger.gradients,
            exchanges=exchanges,
            control_messages=p.wire.sent,
            control_messages_by_peer=tuple(p.wire.sent_to),
            bytes_sent=p.tally.bytes_sent,
            idle_seconds=p.ledger.idle_seconds,
            repeated_pairs=p.tally.repeated / exchanges if exchanges else 0.0,
            seconds_waiting_peer=p.tally.waiting_seconds,
            seconds_exchanging=p.tally.exchanging_seconds,
            exchanges_by_peer=tuple(p.tally.by_peer),
            comm_rate=self.options.comm_rate,
            comm_rate_measured=p.pulse.overall_rate,
            chi_1=(p.survival or p.graph).chi_1,
            chi_2=(p.survival or p.graph).chi_2,
            eta=p.pulse.working_coefficients.eta,
            alpha_tilde=p.pulse.working_coefficients.alpha_tilde,
            transport=p.transport.name,
            unit_seconds=beat.unit_seconds,
            total_gradients=self.total_gradients,
            total_exchanges=beat.total_exchanges,
            train_loss=beat.loss,
            consensus_distance=(spread if exact else beat).consensus_distance,
            mean_drift=self._drift,
            stop_reason=self.stop_reason,
            deaths=self.deaths,
        )

    def _close_communicators(self) -> None:
        """Free them; not where ranks may die, for others may wait for the dead then."""
        if not self.options.fault_tolerant:
            self._comms.close()

    def _after_gradient(self) -> None:
        if self.options.logical:
            made = self._parts.ledger.gradients
            self._parts.averaging.passed(made * self.size)
            self._catch_up(made + 1.0)
            self._keep(made * self.size)
            return
        driver, rate = self._parts.driver, self._parts.lag_rate
        if self._parts.demand.by_gradients:
            driver.wake()
        driver.poll()
        if self.options.max_lag is not None:
            driver.wait_for_lag(self.options.max_lag, rate, self._seconds)

    def _keep(self, total: int) -> None:
        """In logical time: take this rank's part of a checkpoint if one is due."""
        cutter, driver = self._parts.cutter, self._parts.driver
        ledger = self._parts.ledger
        if cutter is not None:
            cutter.reach(
                total,
                lambda: ledger.stopped,
                lambda still: driver.wait_while(still, self._seconds),
            )

    def _end_together(self, buffers: Sequence[Array]) -> None:
        """The last checkpoint and the average, when nobody listens any more."""
        comm, mortal = self._comms.collective, self.options.fault_tolerant
        self.told = mortal  # who may die is waited for no longer than it lives
        keep_last(comm, self._parts, self._seconds, mortal=mortal)
        if self._parts.ledger.failure is None:
            (self._average_survivors if mortal else self._average)(buffers)
        self.told = True

    def _catch_up(self, units: float) -> None:
        """In logical time: make every exchange that is due before `units`."""
        if self.options.logical:
            demand, ledger = self._parts.demand, self._parts.ledger
            demand.extend(units)
            self._parts.driver.wait_for_all(
                lambda: 0 if ledger.stopped else demand.due(), self._seconds
            )

    def _leave(self, error: BaseException | None) -> None:
        ledger, driver = self._parts.ledger, self._parts.driver
        if isinstance(error, KeyboardInterrupt):
            ledger.raise_flags(INTERRUPTED)
        elif error is not None:
            ledger.fail(error)
        ledger.retired = True
        driver.finish()

    def _average(self, buffers: Sequence[Array]) -> None:
        comm, parts = self._comms.collective, self._parts
        self.drill.reach("final")
        exchanger, stopped = parts.exchanger, parts.ledger.flags & INTERRUPTED
        mine = np.array([exchanger.drift, exchanger.checked, stopped], np.float64)
        drift, checked, interrupted = mean(comm, mine, self._seconds)
        # A signal may have come when nobody could be told any more.
        self._reason = "interrupted" if interrupted else "finished"
        self.drill.reach("final")
        self._spread = average_state(comm, parts.state, self._seconds)
        self.drill.reach("final")
        average_arrays(comm, buffers, self._seconds)
        scale = checked * self._spread.rms
        self._drift = abs(float(drift)) / scale if scale else 0.0

    def _average_survivors(self, buffers: Sequence[Array]) -> None:
        comm, survival = self._comms.collective, self._parts.survival
        assert survival is not None
        end = average_survivors(
            comm, self._parts, buffers, self._seconds, self.drill.reach
        )
        survival.note_others(end.ranks)
        self._reason = "interrupted" if end.interrupted else "finished"
        self._spread, self._drift = end.spread, end.drift
