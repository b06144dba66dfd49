"""The heartbeat of all ranks and what follows from it: totals, unit, rates, constants.

Owned by the communication loop. Every decision taken here is a function of sums that all
ranks see alike, so the unit of time and the constants are the same everywhere, a round
apart at most. Constants that differ for that moment do no harm to the mean: an exchange
uses the smaller α̃ of its two ends.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.checkpoint.keeper import Keeper
from acidmpi.clocks import Clock
from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.dynamics.governor import Governor
from acidmpi.mpi.reductions import Comm, Request, start_sum
from acidmpi.telemetry.heartbeat import Heartbeat
from acidmpi.telemetry.sketch import CELLS, Sketcher, consensus_distance
from acidmpi.worker.averaging import Averaging
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.forecast import Forecast
from acidmpi.worker.ledger import ENDED, Ledger
from acidmpi.worker.muster import Muster
from acidmpi.worker.state import RankState
from acidmpi.worker.tally import Tally
from acidmpi.worker.units import Units, WallUnits
from acidmpi.worker.windows import (
    ENOUGH_EXCHANGES,
    RATE_EXCHANGES,
    UNIT_GRADIENTS,
    remember,
)

Vector = NDArray[np.float64]


class Field(IntEnum):
    """Places in the vector that ranks sum: a rank's counters since its start.

    What was added to each since the rank last told follows, then one place for each rank,
    then the sketch.
    """

    ELAPSED = 0
    GRADIENTS = 1
    EXCHANGES = 2
    LOSS_SUM = 3
    LOSS_COUNT = 4
    READY = 5
    DONE = 6
    SETS_ENDED = 7
    SETS_KEPT = 8


@dataclass(frozen=True)
class Beat:
    """What the last round told, the same on all ranks."""

    total_gradients: int = 0
    total_exchanges: int = 0
    comm_rate: float = 0.0
    """Exchanges per rank and unit, over the recent past."""
    unit_seconds: float | None = None
    consensus_distance: float = float("nan")
    """Estimate by a sketch."""
    loss: float = float("nan")
    """Mean of the losses that came with the latest round that brought any."""


class Pulse:
    """Sums counters over the ranks and sets the constants.

    Args:
        heartbeat: the reduction; a `Muster` where ranks may die.
        comm: its communicator.
        state: the parameters; `set_eta` is called on it.
        ledger: learns the totals.
        tally: this rank's exchanges.
        governor: chooses constants on line, or None: they stay as they are (logical
            time, baseline).
        coefficients: constants at the start.
        units: time; its unit is set here unless it is fixed.
        fixed_unit: whether the unit was given.
        sketcher: samples parameters for the consensus distance.
        averaging: told of totals; None in logical time, where each rank's own count
            says when an average is due.
        clock: where time comes from.
        metrics: where heartbeats are recorded, or None.
        keeper: told of totals, and of who has its part of a checkpoint on disk; in
            logical time only of the latter.
    """

    def __init__(
        self,
        *,
        heartbeat: Heartbeat | Muster,
        comm: Comm,
        state: RankState,
        ledger: Ledger,
        tally: Tally,
        governor: Governor | None,
        coefficients: Coefficients,
        units: Units,
        fixed_unit: bool,
        sketcher: Sketcher,
        averaging: Averaging | Collecting | None,
        clock: Clock,
        metrics: Any = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.rank, self.size = comm.rank, comm.size
        self._counted = comm.size
        self._mortal = isinstance(heartbeat, Muster)
        self._all_done = False
        self.beat = Beat()
        self._speed = 0.0
        """Gradients a second of a rank in the last round."""
        self.forecast = Forecast(ledger, clock)
        """What all have made by now."""
        self.coefficients = coefficients
        self.working_coefficients = coefficients
        """The last ones that mix: what the run worked with, for its summary."""
        self._heartbeat = heartbeat
        self._comm = comm
        self._state = state
        self._ledger = ledger
        self._tally = tally
        self._governor = governor
        self._units = units
        self._fixed_unit = fixed_unit
        self._sketcher = sketcher
        self._averaging = averaging
        self._clock = clock
        self._metrics = metrics
        self._keeper = keeper
        self._elapsed_before = 0.0
        self._earlier = 0
        """Gradients of all ranks whose time and exchanges are not counted here."""
        self._began_seconds = clock.now()
        self._done = False
        self._before = np.zeros(len(Field))
        self._given = self._told = np.zeros(len(Field))
        """This rank's counters: those in its last vector, and those that a round has
        taken in. Each tells its own steps, for the sum of counters falls when one dies."""
        self._lately = np.zeros(len(Field))
        """Sums over the window of the unit."""
        self._steadily = np.zeros(len(Field))
        """Sums over the window of the rate."""
        state.set_eta(coefficients.eta)

    @property
    def heartbeat(self) -> Heartbeat | Muster:
        """The sums of all ranks."""
        return self._heartbeat

    @property
    def all_done(self) -> bool:
        """Whether a round has found every rank ended, here or on another survivor."""
        return self._all_done or bool(self._ledger.flags & ENDED)

    @staticmethod
    def slots(size: int) -> slice:
        """Places with one number for each rank."""
        return slice(2 * len(Field), 2 * len(Field) + size)

    def rewire(self, at_one: Coefficients) -> None:
        """Ranks have died: the constants of the graph of the others, at rate 1."""
        if self._governor is not None:
            self._governor.change(at_one)
            self._state.set_ration(at_one.eta)
            self._set(self._governor.coefficients(self._heartbeat.age))

    @staticmethod
    def length(size: int) -> int:
        """Length of the vector that `size` ranks sum."""
        return 2 * len(Field) + size + CELLS + 1

    @property
    def overall_rate(self) -> float:
        """Exchanges per rank and unit of time over the whole run; 0 when unknown."""
        total, unit = self._before, self.beat.unit_seconds
        if unit is None or not total[Field.ELAPSED]:
            return 0.0
        if self._fixed_unit:
            return float(total[Field.EXCHANGES] * unit / total[Field.ELAPSED])
        gradients = total[Field.GRADIENTS] - self._earlier
        return float(total[Field.EXCHANGES] / max(gradients, 1.0))

    @property
    def heartbeat_age(self) -> float:
        """Time since the last round, in intervals as they really are."""
        return self._heartbeat.age

    @property
    def alpha_tilde(self) -> float:
        """The α̃ that this rank offers now."""
        return self.coefficients.alpha_tilde

    def poll(self, *, idle: bool) -> bool:
        """Advance the heartbeat.

        Args:
            idle: this rank's compute loop has left and no exchange is at hand.

        Returns:
            Whether a round has ended.
        """
        if self.all_done:
            return False
        self._heartbeat.hurried = self._ledger.retired or self.forecast.complete
        self._done = self._done or idle
        summed = self._heartbeat.poll(self._contribution)
        if summed is not None:
            self._digest(summed)
        if self._governor is not None and (
            summed is not None or self._heartbeat.age > 2
        ):
            self._set(self._governor.coefficients(self._heartbeat.age))
        return summed is not None

    def sum_into(self, mine: NDArray[np.int64], result: NDArray[np.int64]) -> Request:
        """One last sum, of integers, when no round will begin any more."""
        return start_sum(self._comm, mine, result)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: this rank's share of the sums, and what they said."""
        sums = self._fields()
        sums[[Field.READY, Field.DONE, Field.SETS_ENDED, Field.SETS_KEPT]] = 0
        governor = self._governor
        return {
            "fields": sums.tolist(),
            "earlier": self._earlier,
            "lately": self._lately.tolist(),
            "steadily": self._steadily.tolist(),
            "rate": None if governor is None else governor.known_rate,
        }

    def restore(self, state: dict[str, Any], fields: Vector) -> None:
        """Go on from what `state` gave.

        Args:
            state: of this rank.
            fields: of all ranks' states, one row for each.
        """
        self._elapsed_before = state["fields"][Field.ELAPSED]
        self._before[:] = fields.sum(axis=0)
        self._told = np.array(state["fields"])
        self._earlier = state.get("earlier", 0)
        self._lately[:], self._steadily[:] = state["lately"], state["steadily"]
        if self._governor is not None:
            self._governor.restore(state["rate"])

    def begin_after(self, gradients: int) -> None:
        """Go on after so many gradients of all ranks, of which the ledger knows already.

        Their time and their exchanges belong to another number of ranks.
        """
        self._told = self._fields()
        self._earlier = gradients

    def _elapsed(self) -> float:
        """Seconds of this rank so far, those of earlier starts included."""
        return self._elapsed_before + self._clock.now() - self._began_seconds

    def _contribution(self) -> Vector:
        self._given = self._fields()
        slots = self._ledger.all_known if self._mortal else np.zeros(self.size)
        slots[self.rank] = self._ledger.gradients
        sampled = self._state.sample(self._sketcher.coordinates)
        sketch = self._sketcher.sketch(sampled)
        return np.concatenate([self._given, self._given - self._told, slots, sketch])

    def _fields(self) -> Vector:
        ledger, tally = self._ledger, self._tally
        loss_sum, loss_count = ledger.losses
        fields = np.zeros(len(Field))
        fields[Field.ELAPSED] = self._elapsed()
        fields[Field.GRADIENTS] = ledger.gradients
        fields[Field.EXCHANGES] = tally.exchanges
        fields[Field.LOSS_SUM] = loss_sum
        fields[Field.LOSS_COUNT] = loss_count
        fields[Field.READY] = tally.exchanges >= ENOUGH_EXCHANGES
        fields[Field.DONE] = self._done
        if self._keeper is not None:
            ended, kept = self._keeper.contribution()
            fields[Field.SETS_ENDED], fields[Field.SETS_KEPT] = ended, kept
        return fields

    def _digest(self, summed: Vector) -> None:
        fields, step, rest = np.split(summed, [len(Field), 2 * len(Field)])
        self._ledger.learn_all(rest[: self.size])
        self._told = self._given
        self._before, self._counted = fields, self._heartbeat.counted
        few, each = RATE_EXCHANGES
        window = few + each * self._counted
        remember(self._steadily, step, Field.EXCHANGES, window)
        remember(self._lately, step, Field.GRADIENTS, UNIT_GRADIENTS * self._counted)
        self.beat = self._read(fields, step, rest[self.size :])
        self._foretell(step)
        self._end_if_done(fields)
        self._keep(fields)
        if self._averaging is not None:
            self._averaging.passed(self.beat.total_gradients)
        if self._governor is not None:
            everyone = fields[Field.READY] == self._counted
            self._governor.heartbeat(self.beat.comm_rate, bool(everyone))
        self._record()

    def _foretell(self, step: Vector) -> None:
        """The others have gone on since this rank gave its part.

        As fast as in the slower one of the last two rounds: a run begins with a burst,
        until ranks wait for exchanges, and what comes too early cannot be taken back.
        """
        elapsed, gradients = step[[Field.ELAPSED, Field.GRADIENTS]]
        before, self._speed = self._speed, float(gradients / max(elapsed, 1e-9))
        began = self._clock.now() - (self._elapsed() - self._given[Field.ELAPSED])
        rate = (self._counted - 1) * min(before, self._speed)
        self.forecast.tell(began, rate, self._heartbeat.period_seconds)

    def _end_if_done(self, fields: Vector) -> None:
        """See whether all have ended; survivors tell each other, see `ENDED`."""
        self._all_done = bool(fields[Field.DONE] == self._counted)
        if self._all_done and self._mortal:
            self._ledger.raise_flags(ENDED)

    def _total(self, fields: Vector) -> int:
        """Gradients of all ranks, those of the dead included."""
        if self._mortal:
            return self._ledger.total_gradients
        return int(fields[Field.GRADIENTS])

    def _keep(self, fields: Vector) -> None:
        """A set of checkpoints may be complete now, or due."""
        if self._keeper is not None:
            self._hear_of_sets(self._keeper, fields)
            if self._averaging is not None:  # not in logical time
                self._keeper.passed(self.beat.total_gradients)

    def _hear_of_sets(self, keeper: Keeper, fields: Vector) -> None:
        members = self._heartbeat.members
        if len(members) == self._counted:  # else somebody died after the sum was made
            keeper.hear(fields[Field.SETS_ENDED], fields[Field.SETS_KEPT], members)

    def _read(self, fields: Vector, step: Vector, sketch: Vector) -> Beat:
        unit = self._unit()
        losses = step[Field.LOSS_COUNT]
        return Beat(
            total_gradients=self._total(fields),
            total_exchanges=int(fields[Field.EXCHANGES]) // 2,
            comm_rate=self._rate(unit),
            unit_seconds=unit,
            consensus_distance=consensus_distance(sketch, self._counted),
            loss=float(step[Field.LOSS_SUM] / losses) if losses else self.beat.loss,
        )

    def _rate(self, unit: float | None) -> float:
        """Exchanges per rank and unit in the recent past."""
        recent = self._steadily
        if self._fixed_unit and unit is not None:
            elapsed = recent[Field.ELAPSED]
            return float(recent[Field.EXCHANGES] * unit / elapsed) if elapsed else 0.0
        return float(recent[Field.EXCHANGES] / max(recent[Field.GRADIENTS], 1.0))

    def _unit(self) -> float | None:
        """Mean seconds of a gradient in the recent past; sets the clock of time to it."""
        if not isinstance(self._units, WallUnits):
            return 1.0
        lately = self._lately
        if not self._fixed_unit and lately[Field.GRADIENTS] > 0:
            self._units.set_unit(float(lately[Field.ELAPSED] / lately[Field.GRADIENTS]))
        return self._units.unit_seconds

    def _set(self, coefficients: Coefficients) -> None:
        if not self._state.accelerated:
            coefficients = BASELINE
        if coefficients != self.coefficients:
            self.coefficients = coefficients
            if coefficients.eta:
                self.working_coefficients = coefficients
            self._state.set_eta(coefficients.eta)

    def _record(self) -> None:
        if self._metrics is not None:
            self._metrics.heartbeat(
                total_gradients=self.beat.total_gradients,
                comm_rate=self.beat.comm_rate,
                consensus_distance=self.beat.consensus_distance,
            )
