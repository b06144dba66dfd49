"""Ranks that step together: all-reduce SGD, local SGD, and gossip in rounds.

Every rank takes its own time for a gradient and then waits for those whose values it needs:
all of them, or the one peer of the round. Communication itself takes no time here.
"""

from collections.abc import Callable, Sequence

import numpy as np

from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.asynchronous import BYTES, RECENT
from acidmpi.simulate.cluster import consensus_distance
from acidmpi.simulate.outcome import Outcome, RankTotals, drift, floor_of, look
from acidmpi.simulate.speeds import Speeds
from acidmpi.simulate.workload import Floats, Workload
from acidmpi.telemetry.metrics import Metrics


class RoundSimulation:
    """One run of gossip, allreduce or localsgd.

    Args:
        config: the options.
        seed: of this run.
        workload: the functions of the ranks.
        metrics: by rank, where to record gradients and exchanges; none: they are not.
    """

    def __init__(
        self,
        config: SimulateConfig,
        seed: int,
        workload: Workload,
        metrics: Sequence[Metrics] = (),
    ) -> None:
        self._config = config
        self._workload = workload
        self._metrics = metrics
        self._speeds = Speeds(config, seed)
        self._x = workload.start()
        self._start = self._x.copy()
        self._moved = np.zeros(self._x.shape[1])
        self._velocity = np.zeros_like(self._x) if config.momentum else None
        self._ready = np.zeros(config.ranks)
        self._losses: list[float] = []
        self._round = 0
        self.outcome = Outcome(
            seed,
            self._speeds.unit_seconds,
            [RankTotals() for _ in range(config.ranks)],
            self._x.shape[1],
        )

    def run(self) -> Outcome:
        """Let the time pass that the options ask for, or less if the ranks diverge."""
        config, outcome = self._config, self.outcome
        average = _AVERAGES[config.method]
        gaps = config.units / config.samples
        self._look(0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            while outcome.times[-1] < config.units and not outcome.diverged:
                self._step()
                average(self)
                self._round += 1
                now = float(self._ready.mean())
                if now >= min(outcome.times[-1] + gaps, config.units):
                    self._look(now)
        outcome.mean_drift = self._drift
        outcome.floor = floor_of(self._x)
        recent = self._losses[-max(1, int(RECENT * len(self._losses))) :]
        outcome.train_loss = float(np.mean(recent)) if recent else None
        return outcome

    # Gradients

    def _step(self) -> None:
        """Every rank takes its time, and a gradient where there are any."""
        updates = np.zeros_like(self._x)
        durations = [self._speeds.duration(rank) for rank in range(len(self._x))]
        self._ready += durations
        if not self._workload.computes:
            return
        for rank, x in enumerate(self._x):
            loss, gradient = self._workload.gradient(rank, x)
            updates[rank] = self._update(rank, gradient)
            self._computed(rank, loss)
        if self._config.method == "allreduce":
            updates[:] = updates.mean(axis=0)
        self._x += updates
        self._moved += updates.sum(axis=0)

    def _update(self, rank: int, gradient: Floats) -> Floats:
        gradient *= -self._config.lr
        if self._velocity is None:
            return gradient
        velocity: Floats = self._velocity[rank]
        velocity *= self._config.momentum
        velocity += gradient
        return velocity

    def _computed(self, rank: int, loss: float | None) -> None:
        totals = self.outcome.totals[rank]
        totals.gradients += 1
        if loss is not None:
            self._losses.append(loss)
        if self._metrics:
            time = float(self._ready[rank])
            seconds = time * self.outcome.unit_seconds
            self._metrics[rank].gradient(
                seconds, time, totals.gradients, loss, self._config.lr
            )

    # Averages

    def allreduce(self) -> None:
        """Gradients have been averaged: all wait for the slowest."""
        self._meet_all(2 * (len(self._x) - 1) / len(self._x))

    def localsgd(self) -> None:
        """Now and then parameters are averaged."""
        if (self._round + 1) % self._config.local_steps == 0:
            self._x[:] = self._x.mean(axis=0)
            self._meet_all(2 * (len(self._x) - 1) / len(self._x))

    def gossip(self) -> None:
        """Average with what the rank 2^k places before has; k goes round with the steps."""
        size = len(self._x)
        if size == 1:
            return
        before = 1 << (self._round % (size - 1).bit_length())
        self._x = 0.5 * (self._x + np.roll(self._x, before, axis=0))
        self._wait(np.maximum(self._ready, np.roll(self._ready, before)))
        for rank, totals in enumerate(self.outcome.totals):
            totals.exchanges += 1
            totals.bytes_sent += BYTES * self._x.shape[1]
            self._exchanged(rank, (rank - before) % size)

    def _meet_all(self, vectors_sent: float) -> None:
        self._wait(np.full_like(self._ready, self._ready.max()))
        for totals in self.outcome.totals:
            totals.bytes_sent += int(BYTES * vectors_sent * self._x.shape[1])

    def _wait(self, until: Floats) -> None:
        for totals, idle in zip(self.outcome.totals, until - self._ready, strict=True):
            totals.idle_units += float(idle)
        self._ready = until

    def _exchanged(self, rank: int, peer: int) -> None:
        if self._metrics:
            time = float(self._ready[rank])
            self._metrics[rank].exchange(
                time * self.outcome.unit_seconds,
                time,
                self.outcome.totals[rank].gradients,
                peer,
                BYTES * self._x.shape[1],
                0.0,
            )

    # What is seen of it

    def _look(self, time: float) -> None:
        mean = self._x.mean(axis=0)
        scores = self._workload.evaluate(mean)
        look(self.outcome, time, consensus_distance(self._x), mean, scores)
        expected = self._start.mean(axis=0) + self._moved / len(self._x)
        self._drift = drift(mean, expected, self._start)


_AVERAGES: dict[str, Callable[[RoundSimulation], None]] = {
    "allreduce": RoundSimulation.allreduce,
    "localsgd": RoundSimulation.localsgd,
    "gossip": RoundSimulation.gossip,
}
