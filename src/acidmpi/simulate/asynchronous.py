"""Ranks that average in pairs: an event loop on a virtual clock.

Exchanges come from `acidmpi.simulate.meetings`, gradients end when their rank's speed says
so, and what happens next is always the earliest of what is known to come. An event works
on the vectors of one rank or of two, and finds its place among the others in a heap: its
cost does not depend on the number of ranks, but for the heap's logarithm.
"""

import heapq
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from acidmpi.config.simulate import SimulateConfig
from acidmpi.pairing.events import Event
from acidmpi.simulate.cluster import Cluster, consensus_distance
from acidmpi.simulate.graph import Graph
from acidmpi.simulate.meetings import Reservations, meetings
from acidmpi.simulate.orders import DIFFERENCES, read
from acidmpi.simulate.outcome import Outcome, RankTotals, drift, floor_of, look
from acidmpi.simulate.prediction import constants_of
from acidmpi.simulate.speeds import Speeds
from acidmpi.simulate.thetas import Thetas
from acidmpi.simulate.workload import Floats, Workload
from acidmpi.telemetry.metrics import Metrics

BYTES = 4
"""Of a number on the wire: real ranks send float32."""

RECENT = 0.1
"""Share of a run's gradients, the last ones, whose losses count."""


class PairSimulation:
    """One run of a2cid2 or async.

    Args:
        config: the options.
        seed: of this run.
        workload: the functions of the ranks.
        graph: who may exchange, and its spectrum.
        metrics: by rank, where to record gradients and exchanges; none: they are not.
    """

    def __init__(
        self,
        config: SimulateConfig,
        seed: int,
        workload: Workload,
        graph: Graph,
        metrics: Sequence[Metrics] = (),
    ) -> None:
        self._config = config
        self._workload = workload
        self._metrics = metrics
        self._speeds = Speeds(config, seed)
        self._start = workload.start()
        constants = constants_of(config, graph)
        self._thetas = Thetas(constants.eta, self._speeds.means, config.local_time)
        self._cluster = Cluster(self._start, constants, config.method == "a2cid2")
        self._difference = DIFFERENCES[config.order]
        self._meetings = meetings(
            graph.topology, config.comm_rate, seed, config.rematch
        )
        self._reservations = Reservations(config.ranks, config.transfer_units)
        self._moved = np.zeros(self._start.shape[1])
        self._velocity = np.zeros_like(self._start) if config.momentum else None
        self._pending: list[tuple[float | None, Floats] | None] = [None] * config.ranks
        self._duration = [0.0] * config.ranks
        self._waiting: list[float | None] = [None] * config.ranks
        self._losses: list[float] = []
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self.outcome = Outcome(
            seed,
            self._speeds.unit_seconds,
            [RankTotals() for _ in range(config.ranks)],
            self._start.shape[1],
            coefficients=constants,
            chi_1=graph.chi_1,
            chi_2=graph.chi_2,
        )

    def run(self) -> Outcome:
        """Let the time pass that the options ask for, or less if the ranks diverge."""
        config, outcome = self._config, self.outcome
        for moment in np.linspace(0.0, config.units, config.samples + 1):
            self._at(float(moment), self._look)
        self._next_meeting()
        if self._workload.computes:
            for rank in range(config.ranks):
                self._begin(rank, 0.0, self._speeds.first(rank))
        with np.errstate(over="ignore", invalid="ignore"):
            self._pass_time()
        self._finish()
        return outcome

    def _pass_time(self) -> None:
        heap, end = self._heap, self._config.units
        while heap and not self.outcome.diverged:
            time, _, action = heapq.heappop(heap)
            if time > end:
                return
            action(time)

    def _at(self, time: float, action: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, action))

    def _before_all_at(self, time: float, action: Callable[[float], None]) -> None:
        """An exchange that ends at a moment frees its ranks for one that begins then."""
        self._count += 1
        heapq.heappush(self._heap, (time, -self._count, action))

    # Exchanges

    def _next_meeting(self) -> None:
        event = next(self._meetings, None)
        if event is not None:
            self._at(event.time, partial(self._due, event))

    def _due(self, event: Event, time: float) -> None:
        self._next_meeting()
        if not self._config.transfer_units:
            self._exchange(event, time)
        elif self._config.overlap:
            self._read(event, time)
        else:
            self._at(self._reservations.begin(event), partial(self._read, event))

    def _exchange(self, event: Event, time: float) -> None:
        """Both ends at one instant."""
        i, j = event.i, event.j
        thetas = self._thetas.at(i, time), self._thetas.at(j, time)
        m_i, m_j = self._difference(self._cluster, i, j, *thetas)
        self._cluster.jump(i, m_i)
        self._cluster.jump(j, m_j)
        self._exchanged(i, j, time)
        self._exchanged(j, i, time)

    def _read(self, event: Event, time: float) -> None:
        """An exchange that takes time begins: snapshots now, jumps when they land."""
        i, j = event.i, event.j
        thetas = self._thetas.at(i, time), self._thetas.at(j, time)
        m = read(self._cluster, i, j, *thetas)
        landing = partial(self._land, event, m, thetas)
        self._before_all_at(time + self._config.transfer_units, landing)

    def _land(
        self, event: Event, m: Floats, thetas: tuple[float, float], time: float
    ) -> None:
        ends = (event.i, event.j), (event.j, event.i)
        for (rank, peer), theta in zip(ends, thetas, strict=True):
            now = self._thetas.at(rank, time)
            self._cluster.at(rank, now)
            self._cluster.jump(rank, m, now - theta)
            np.negative(m, out=m)
            self._exchanged(rank, peer, time)

    def _exchanged(self, rank: int, peer: int, time: float) -> None:
        totals = self.outcome.totals[rank]
        sent = BYTES * self._start.shape[1]
        totals.exchanges += 1
        totals.bytes_sent += sent
        if self._metrics:
            seconds = self.outcome.unit_seconds
            took = self._config.transfer_units * seconds
            self._metrics[rank].exchange(
                time * seconds, time, totals.gradients, peer, sent, took
            )
        since = self._waiting[rank]
        if since is not None and not self._lags(rank):
            self._waiting[rank] = None
            totals.idle_units += time - since
            self._begin(rank, time, self._speeds.duration(rank))

    # Gradients

    def _begin(self, rank: int, time: float, duration: float) -> None:
        """A gradient begins, where x is now if gradients are stale."""
        if self._config.stale:
            self._pending[rank] = self._gradient(rank, time)
        self._duration[rank] = duration
        self._at(time + duration, partial(self._end, rank))

    def _gradient(self, rank: int, time: float) -> tuple[float | None, Floats]:
        x = self._cluster.at(rank, self._thetas.at(rank, time))
        return self._workload.gradient(rank, x)

    def _end(self, rank: int, time: float) -> None:
        loss, gradient = self._pending[rank] or self._gradient(rank, time)
        self._pending[rank] = None
        update = self._step(rank, gradient)
        self._cluster.update(rank, self._thetas.at(rank, time), update)
        self._moved += update
        self._thetas.learn(rank, time, self._duration[rank])
        self._computed(rank, time, loss)
        if self._lags(rank):
            self._waiting[rank] = time
        else:
            self._begin(rank, time, self._speeds.duration(rank))

    def _step(self, rank: int, gradient: Floats) -> Floats:
        """What SGD adds to x; in the gradient's own memory."""
        gradient *= -self._config.lr
        if self._velocity is None:
            return gradient
        velocity: Floats = self._velocity[rank]
        velocity *= self._config.momentum
        velocity += gradient
        return velocity

    def _computed(self, rank: int, time: float, loss: float | None) -> None:
        totals = self.outcome.totals[rank]
        totals.gradients += 1
        if loss is not None:
            self._losses.append(loss)
        if self._metrics:
            seconds = time * self.outcome.unit_seconds
            self._metrics[rank].gradient(
                seconds, time, totals.gradients, loss, self._config.lr
            )

    def _lags(self, rank: int) -> bool:
        """Whether the rank's own gradients call for more exchanges than it has had."""
        limit, totals = self._config.max_lag, self.outcome.totals[rank]
        lag = self._config.comm_rate * totals.gradients - totals.exchanges
        return limit is not None and lag > limit

    # What is seen of it

    def _look(self, time: float) -> None:
        x, x_tilde = self._cluster.now(self._thetas.all(time))
        mean = (x.mean(axis=0) + x_tilde.mean(axis=0)) / 2
        scores = self._workload.evaluate(mean)
        look(self.outcome, time, consensus_distance(x), mean, scores)
        self._drift = drift(
            mean, self._start.mean(axis=0) + self._moved / len(x), self._start
        )

    def _finish(self) -> None:
        outcome = self.outcome
        outcome.mean_drift = self._drift
        outcome.floor = floor_of(self._cluster.x)
        outcome.touched = self._cluster.touched
        recent = self._losses[-max(1, int(RECENT * len(self._losses))) :]
        outcome.train_loss = float(np.mean(recent)) if recent else None
        for rank, since in enumerate(self._waiting):
            if since is not None:
                outcome.totals[rank].idle_units += outcome.times[-1] - since
