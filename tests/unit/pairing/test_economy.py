"""What the handshake costs, and whether it keeps the rate: a simulation of whole graphs.

Time is in units of the mean exchange. Latencies and durations are random; a channel keeps
its order; an exchange begins when both ends know of it.
"""

import heapq
from collections import defaultdict
from itertools import count
from typing import NamedTuple

import numpy as np
import pytest

from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.messages import Kind
from acidmpi.topology import make_topology, repaired


class Cost(NamedTuple):
    messages: float
    """Control messages per exchange."""
    repeated: float
    """Share of exchanges with the peer of the rank's previous one."""
    rate: float
    """Exchanges a rank takes part in per unit of time."""
    lag: float
    """Mean number of exchanges that are due when one more becomes due."""


class Simulation:
    """Ranks that follow the documented rule of patience.

    Args:
        topology: whom they may be matched with.
        latency: mean seconds of a message.
        shape: of the gamma distribution of durations; variance is 1 / shape.
        start_rate: own exchanges that become due per unit; None means always due.
        silence: a rank, and from when to when it does nothing.
        aside_after: how long an answer is waited for.
    """

    def __init__(
        self,
        topology,
        latency,
        shape,
        start_rate=None,
        seed=0,
        silence=(None, 0.0, 0.0),
        aside_after=np.inf,
    ):
        self.silence, self.aside_after = silence, aside_after
        self.chance = np.random.default_rng(seed)
        self.latency, self.shape, self.start_rate = latency, shape, start_rate
        ranks = range(topology.size)
        self.machines = [
            HandshakeMachine(
                rank,
                topology.neighbours(rank),
                topology.edge_weights(rank),
                np.random.default_rng([seed, rank]),
            )
            for rank in ranks
        ]
        self.due = [0 if start_rate else np.inf for _ in ranks]
        self.hold = [0.0 for _ in ranks]
        self.busy = [False for _ in ranks]
        self.previous = [None for _ in ranks]
        self.turn = [0 for _ in ranks]
        self.messages = self.matches = self.repeated = 0
        self.ended = [[] for _ in ranks]
        self.lags = []
        self.asked = defaultdict(float)
        self.queue, self.order = [], count()
        self.arrived = defaultdict(float)
        for rank in ranks:
            self.later(self.chance.random(), self.act, rank)
            if start_rate:
                self.later(self.chance.exponential(1 / start_rate), self.fall_due, rank)

    def later(self, time, call, *args):
        heapq.heappush(self.queue, (time, next(self.order), call, args))

    def run(self, until):
        while self.queue[0][0] < until:
            time, _, call, args = heapq.heappop(self.queue)
            silent, since, back = self.silence
            if args[0] == silent and since <= time < back:
                self.later(back, call, *args)
            else:
                call(time, *args)
        return Cost(
            2 * self.messages / self.matches,
            self.repeated / self.matches,
            self.matches / len(self.machines) / until,
            float(np.mean(self.lags)) if self.lags else np.inf,
        )

    def fall_due(self, time, rank):
        self.lags.append(self.due[rank])
        self.due[rank] += 1
        gap = self.chance.exponential(1 / self.start_rate)
        self.later(time + gap, self.fall_due, rank)
        self.act(time, rank)

    def send(self, time, rank, sends):
        for peer, kind in sends:
            self.messages += 1
            arrival = time + self.chance.gamma(2, self.latency / 2)
            arrival = max(arrival, np.nextafter(self.arrived[rank, peer], np.inf))
            self.arrived[rank, peer] = arrival
            self.later(arrival, self.hear, peer, rank, kind)

    def hear(self, time, rank, source, kind):
        machine = self.machines[rank]
        began = machine.matched is not None
        self.send(time, rank, machine.receive(source, kind))
        if began and machine.matched is None:
            self.take_back(rank)
        if kind == Kind.BUSY:
            self.hold[rank] = time + machine.patience()
        self.act(time, rank)

    def act(self, time, rank):
        machine = self.machines[rank]
        if machine.matched is not None:
            if not self.busy[rank]:
                self.begin(time, rank, machine)
        elif machine.can_start and self.due[rank] >= 1:
            if time < self.hold[rank]:
                self.later(self.hold[rank], self.act, rank)
            else:
                self.send(time, rank, machine.start())
                if self.aside_after < np.inf:
                    self.later(time + self.aside_after, self.give_up, rank, time)
                    self.asked[rank] = time

    def give_up(self, time, rank, asked):
        machine = self.machines[rank]
        if machine.asking is not None and self.asked[rank] == asked:
            self.send(time, rank, machine.set_aside())
            self.act(time, rank)

    def begin(self, time, rank, machine):
        peer = machine.matched
        self.busy[rank] = True
        self.turn[rank] += 1
        self.matches += 1
        self.repeated += self.previous[rank] == peer and len(machine.neighbours) > 1
        self.previous[rank] = peer
        self.due[rank] -= machine.started
        if self.busy[peer] and self.machines[peer].matched == rank:
            over = time + self.chance.gamma(self.shape, 1 / self.shape)
            for end in (rank, peer):
                late = self.latency * self.chance.random()
                self.later(over + late, self.end, end, self.turn[end])

    def take_back(self, rank):
        """The exchange that only this rank has begun is called off."""
        self.busy[rank] = False
        self.turn[rank] += 1
        self.matches -= 1

    def end(self, time, rank, turn):
        if turn != self.turn[rank]:
            return  # a death has cut it short
        machine = self.machines[rank]
        self.busy[rank] = False
        self.ended[rank].append(time)
        self.send(time, rank, machine.finish())
        self.hold[rank] = time + machine.patience()
        self.act(time, rank)


@pytest.mark.parametrize("latency", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [2, 20], ids=["uneven", "even"])
@pytest.mark.parametrize(
    ("name", "size", "most_messages"),
    [("ring", 16, 3.2), ("ring", 64, 3.2), ("complete", 16, 7.5)],
)
def test_messages_and_repeated_pairs_when_always_due(
    name, size, most_messages, latency, shape, capsys
):
    cost = Simulation(make_topology(name, size), latency, shape).run(150 + 50 * latency)
    with capsys.disabled():
        print(
            f"\n{name} {size}, latency {latency}, shape {shape}: "
            f"{cost.messages:.2f} messages per exchange, "
            f"{cost.repeated:.1%} repeated, {cost.rate:.2f} exchanges a unit"
        )
    assert cost.messages <= most_messages
    assert cost.repeated < 0.08


@pytest.mark.parametrize("name", ["ring", "complete"])
def test_the_asked_rate_is_kept_with_little_lag(name):
    """40 % of the time in exchanges: a rank starts 0.2 and takes part in 0.4."""
    topology = make_topology(name, 16)
    cost = Simulation(topology, 0.05, 4, start_rate=0.2).run(1000)
    assert cost.rate == pytest.approx(0.4, rel=0.05)
    assert cost.lag < 1.5


def test_crossing_requests_do_not_swallow_exchanges():
    """Two ranks with slow messages: many requests cross, none may serve both."""
    cost = Simulation(make_topology("ring", 2), 0.5, 4, start_rate=0.1).run(20000)
    assert cost.rate == pytest.approx(0.2, rel=0.05)


def test_two_ranks_lose_little_time_between_exchanges():
    cost = Simulation(make_topology("ring", 2), 0.05, 20).run(200)
    assert cost.rate > 0.85


def others_rate(name, aside_after):
    """Exchanges of the ranks that did not fall silent, while one did, and before."""
    silence = (0, 200.0, 400.0)
    run = Simulation(
        make_topology(name, 8),
        0.05,
        4,
        start_rate=0.2,
        silence=silence,
        aside_after=aside_after,
    )
    run.run(600)
    ended = [np.array(times) for times in run.ended]
    near = run.machines[0].neighbours
    spans = [(0, 200), (210, 400), (410, 600)]
    counts = [
        [np.sum((ended[rank] >= a) & (ended[rank] < b)) / (b - a) for rank in near]
        for a, b in spans
    ]
    silent = [np.sum((ended[0] >= a) & (ended[0] < b)) / (b - a) for a, b in spans]
    return np.array(counts), silent


@pytest.mark.parametrize("name", ["ring", "complete"])
def test_a_silent_rank_holds_up_nobody_and_is_used_again(name):
    counts, silent = others_rate(name, aside_after=2.0)
    before, meanwhile, after = counts.min(axis=1)
    assert meanwhile > 0.5 * before  # a neighbour in its exchange is held up
    assert silent[1] == 0
    assert silent[2] > 0.5 * silent[0]
    assert after > 0.5 * before


def test_planted_fault_without_setting_aside_neighbours_wait_with_it():
    counts, _ = others_rate("ring", aside_after=np.inf)
    assert counts[1].min() == 0


class MortalSimulation(Simulation):
    """Ranks die at given moments; the others hear of it at different ones, and repair.

    Args:
        topology: before any death.
        deaths: rank and moment of each.
        news: longest time from a death to the news.
    """

    def __init__(self, topology, deaths, news, **options):
        self.dead = set()
        super().__init__(topology, 0.05, 4, **options)
        self.whole = topology
        self.known = [set() for _ in self.machines]
        for rank, moment in deaths:
            self.later(moment, self.die, rank, news)

    def later(self, time, call, *args):
        def unless_dead(time, rank, *rest):
            if rank not in self.dead:
                call(time, rank, *rest)

        super().later(time, unless_dead, *args)

    def die(self, time, rank, news):
        self.dead.add(rank)
        for other, machine in enumerate(self.machines):
            self.turn[other] += machine.matched == rank
            self.later(time + news * self.chance.random(), self.mourn, other, rank)

    def mourn(self, time, rank, dead):
        machine = self.machines[rank]
        if machine.matched == dead:
            self.busy[rank] = False
        machine.remove(dead)
        self.known[rank].add(dead)
        graph = repaired(self.whole, self.known[rank])
        machine.rewire(graph.neighbours(rank), graph.edge_weights(rank))
        self.act(time, rank)

    def begin(self, time, rank, machine):
        if machine.matched in self.dead:
            self.busy[rank] = True
        else:
            super().begin(time, rank, machine)


@pytest.mark.parametrize("name", ["ring", "torus", "random-regular:3"])
@pytest.mark.parametrize("deaths", [1, 16, 29])
def test_survivors_keep_the_asked_rate_on_the_repaired_graph(name, deaths):
    chance = np.random.default_rng([deaths, len(name)])
    dying = chance.choice(32, deaths, replace=False).tolist()
    moments = chance.uniform(50, 100, deaths).tolist()
    check_survivors(name, 32, zip(dying, moments, strict=True))


def test_survivors_of_a_centre_keep_the_asked_rate():
    check_survivors("star", 8, [(0, 60.0)])


def check_survivors(name, size, deaths):
    topology = make_topology(name, size)
    run = MortalSimulation(topology, deaths, news=3.0, start_rate=0.1)
    run.run(1150)
    alive = [rank for rank in range(size) if rank not in run.dead]
    assert all(run.known[rank] == run.dead for rank in alive)
    late = [sum(time > 150 for time in run.ended[rank]) / 1000 for rank in alive]
    assert np.mean(late) == pytest.approx(0.2, rel=0.15)
    assert min(late) > 0.05


def test_planted_fault_survivors_that_keep_their_old_neighbours_stand_still(
    monkeypatch,
):
    monkeypatch.setattr(HandshakeMachine, "rewire", lambda *_: None)
    star = make_topology("star", 16)
    run = MortalSimulation(star, [(0, 50.0)], news=3.0, start_rate=0.1)
    run.run(300)
    assert max(max(run.ended[rank], default=0) for rank in range(1, 16)) < 60
