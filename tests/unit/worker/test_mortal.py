"""Ranks that go on when others die, in one process: every moment, every order of news."""

from types import SimpleNamespace

import numpy as np
import pytest

from acidmpi.dynamics.arrivals import PoissonArrivals
from acidmpi.dynamics.coefficients import acid_coefficients
from acidmpi.dynamics.governor import Governor
from acidmpi.errors import AcidError
from acidmpi.kernels import load
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.telemetry.sketch import Sketcher
from acidmpi.topology.repair import repaired
from acidmpi.topology.spectrum import spectrum
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.demand import PoissonDemand
from acidmpi.worker.exchange import Exchanger
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.membership import Death, Membership, merged
from acidmpi.worker.mortal import MortalLoop
from acidmpi.worker.muster import Muster
from acidmpi.worker.pulse import Pulse
from acidmpi.worker.state import RankState
from acidmpi.worker.survival import Survival
from acidmpi.worker.tally import Tally
from acidmpi.worker.units import WallUnits

GRADIENTS = 12


class News:
    """What MPI would tell one rank: of each death once, some time after it."""

    def __init__(self):
        self.coming = []

    def news(self):
        told, self.coming = self.coming, []
        return told


def mortal_fleet(fleet, size):
    """A fleet of `conftest`, whose ranks may die."""

    class Mortal(fleet):
        def _assemble(self, rank, size, numbers, goal, rate, deadline):
            clock, news = self.clock, News()
            membership = Membership(rank, size, clock.now())
            x = np.random.default_rng(rank).standard_normal(numbers)
            units = WallUnits(clock, self.unit)
            state = RankState([x], load("reference"), units, True)
            ledger, tally = Ledger(rank, size, goal), Tally(size)
            exchanger = Exchanger(
                state,
                self.hub.transport(rank),
                64,
                clock,
                deadline,
                0.0,
                membership.dead,
            )
            machine = HandshakeMachine(
                rank,
                self.topology.neighbours(rank),
                self.topology.edge_weights(rank),
                np.random.default_rng(100 + rank),
            )
            arrivals = PoissonArrivals(
                self.topology.start_rate(rank, rate), np.random.default_rng(200 + rank)
            )
            demand = PoissonDemand(arrivals, units, lambda: ledger.lag(rate), 1e9)
            at_one = acid_coefficients(*self.found[:2])
            collecting = Collecting(
                None, membership, state, ledger, None, clock, deadline
            )
            pulse = Pulse(
                heartbeat=Muster(membership, Pulse.slots(size), 0.25, deadline, clock),
                comm=self.world.comm(rank),
                state=state,
                ledger=ledger,
                tally=tally,
                governor=Governor(at_one, rate),
                coefficients=at_one._replace(eta=0.0, alpha_tilde=0.5),
                units=units,
                fixed_unit=True,
                sketcher=Sketcher([numbers], 0),
                averaging=collecting,
                clock=clock,
            )
            survival = Survival(
                membership=membership,
                detector=news,
                topology=self.topology,
                chi=self.found[:2],
                constants=acid_coefficients,
                comm_rate=rate,
                ledger=ledger,
                machine=machine,
                demand=demand,
                clock=clock,
            )
            survival.changed = pulse.rewire
            loop = MortalLoop(
                survival=survival,
                machine=machine,
                wire=PostOfTheLiving(self, rank, size),
                demand=demand,
                exchanger=exchanger,
                pulse=pulse,
                averaging=collecting,
                ledger=ledger,
                tally=tally,
                clock=clock,
                deadline_seconds=deadline,
                hot_seconds=0.0,
            )
            loop.connect(pulse.heartbeat, collecting)
            initial = float(x.sum())
            return SimpleNamespace(**{k: v for k, v in locals().items() if k != "self"})

        def kill(self, victim, chance):
            """It does nothing more; some of what it sent is lost, the rest may come."""
            self.hub.kill(victim)
            self.living = [one for one in self.living if one.rank != victim]
            self.untold = [
                (chance.uniform(0.0, 0.3) + self.clock.now(), one, victim)
                for one in self.living
            ] + self.untold

        def go_on(self, chance):
            """One step of the clock: news of deaths arrive, some ranks act."""
            self.clock.advance(0.01)
            due = [entry for entry in self.untold if entry[0] <= self.clock.now()]
            self.untold = [entry for entry in self.untold if entry not in due]
            for _, one, victim in due:
                one.news.coming.append(victim)
            for one in self.living:
                if not one.loop.ended and chance.random() < 0.5:
                    self.advance(one)

    made = Mortal(size, goal=GRADIENTS * size, deadline=20.0)
    made.living, made.untold = list(made.ranks), []
    return made


class PostOfTheLiving:
    """A wire through queues, that carries loads, too; the dead receive nothing."""

    def __init__(self, fleet, rank, size):
        self._fleet, self._rank = fleet, rank
        self.sent_to = [0] * size
        self.received = 0
        self.quiet = True

    def send(self, peer, kind, notice, text="", load=b""):
        from acidmpi.pairing.wire import Message

        self.sent_to[peer] += 1
        if peer not in self._fleet.hub.dead:
            message = Message(self._rank, kind, notice, text, load)
            self._fleet.post[peer].append(message)

    def receive(self):
        waiting = self._fleet.post[self._rank]
        if not waiting:
            return None
        self.received += 1
        return waiting.popleft()

    def close(self):
        """Nothing to withdraw."""


def run(fleet, size, victims, seed):
    """Train until all who live have ended; at random moments some die."""
    chance = np.random.default_rng(seed)
    ships = mortal_fleet(fleet, size)
    moments = sorted(chance.uniform(0.0, 12.0, len(victims)))
    plan = list(zip(moments, victims, strict=True))
    while not all(one.loop.ended for one in ships.living):
        if plan and ships.clock.now() >= plan[0][0]:
            ships.kill(plan.pop(0)[1], chance)
        ships.go_on(chance)
        for one in ships.living:
            if chance.random() < 0.01 and not one.ledger.stopped:
                one.ledger.count_gradient(None, 0)
            one.ledger.retired |= one.ledger.stopped
        assert ships.clock.now() < 150, "the survivors do not end"
    return ships


def halves(ships):
    """Σ over who lives of the elements of (x + x̃)/2."""
    total = 0.0
    for one in ships.living:
        half = np.empty_like(one.state.arrays[0])
        for chunk in one.state.blocks:
            one.state.half_sum(chunk, half[chunk.start : chunk.stop])
        total += half.sum()
    return total


CASES = [(4, [0], 1), (4, [2, 1], 2), (5, [0, 1, 2, 3], 3), (7, [3, 0, 6], 4)]


@pytest.mark.parametrize(("size", "victims", "seed"), CASES)
@pytest.mark.parametrize("again", range(2))
def test_survivors_end_together_and_agree(fleet, size, victims, seed, again):
    ships = run(fleet, size, victims, 10 * seed + again)
    for one in ships.living:
        dead = one.membership.dead
        assert dead == {v for v in victims if v in ships.hub.dead}
        assert one.survival.topology == repaired(ships.topology, dead)
        for death in one.membership.deaths:
            assert death.last.startswith("it ")
            assert "{" not in death.last
            assert death.heard_seconds <= death.seconds
        if len(ships.living) > 1:
            assert one.survival.chi_1 == spectrum(one.survival.topology).chi_1
    totals = {one.ledger.total_gradients for one in ships.living}
    assert min(totals) >= GRADIENTS * size, (
        "the dead ranks' share is made by the others"
    )


@pytest.mark.parametrize(("size", "victims", "seed"), CASES)
def test_the_survivors_sum_changes_by_exchanges_with_the_dead_alone(
    fleet, size, victims, seed
):
    ships = run(fleet, size, victims, seed)
    dead = ships.hub.dead
    among = sum(one.exchanger.drift_without(dead) for one in ships.living)
    with_dead = sum(one.exchanger.drift for one in ships.living) - among
    change = halves(ships) - sum(one.initial for one in ships.living)
    assert abs(among) < 1e-9
    assert abs(change - with_dead) < 1e-9
    assert with_dead != 0.0


PLANTED = {
    "nobody is told of deaths": (News, "news", lambda self: []),
    "the machine keeps the dead": (Survival, "_tell_machine", lambda self: None),
    "the first one is waited for": (Muster, "_hand_over", lambda self, vector: None),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_noticed(fleet, monkeypatch, name):
    owner, method, broken = PLANTED[name]
    monkeypatch.setattr(owner, method, broken)
    noticed = 0
    for seed in range(2):
        try:
            ships = run(fleet, 5, [0, 2], seed)
            heard = {frozenset(one.membership.dead) for one in ships.living}
            noticed += heard != {frozenset(ships.hub.dead)}
        except (AcidError, AssertionError):
            noticed += 1
    assert noticed


def test_what_survivors_know_of_a_death_is_put_together():
    def death(rank, seconds, gradients, last, heard, recovered):
        return Death(rank, seconds, 1e9 + seconds, gradients, last, heard, recovered)

    (first, second) = merged(
        [
            [death(2, 5.0, 40, "it asked", 4.0, None)],
            [death(2, 5.1, 41, "it beat", 4.5, 0.2), death(0, 7.0, 9, "x", 1.0, None)],
        ]
    )
    assert (first.rank, second.rank) == (0, 2)
    assert (second.seconds, second.gradients, second.last) == (5.0, 41, "it beat")
    assert second.recovered_seconds == 0.2


def test_the_lowest_survivor_leads_and_a_death_counts_once():
    one = Membership(1, 3)
    assert not one.leads
    assert one.bury(0, 7, 2.0).gradients == 7
    assert one.bury(0, 9, 3.0) is None
    assert one.bury(1, 0, 3.0) is None, "nobody buries itself"
    assert one.leads
    assert (one.alive, one.others) == ((1, 2), (2,))
