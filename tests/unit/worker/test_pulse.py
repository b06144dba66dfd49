"""What follows from a heartbeat: totals, unit, rates, constants, the end."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock
from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.dynamics.governor import Governor
from acidmpi.kernels import load
from acidmpi.telemetry.heartbeat import Heartbeat
from acidmpi.telemetry.sketch import CELLS, Sketcher
from acidmpi.worker import pulse as pulse_module
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.pulse import Field, Pulse
from acidmpi.worker.state import RankState
from acidmpi.worker.tally import Tally
from acidmpi.worker.units import LogicalUnits, WallUnits

AT_ONE = Coefficients(eta=0.2, alpha=0.5, alpha_tilde=2.0)


class Ranks:
    """Pulses of a few ranks whose heartbeats meet in one process."""

    def __init__(
        self,
        world,
        size=3,
        *,
        unit=None,
        governed=True,
        accelerated=True,
        logical=False,
        rate=1.0,
        goal=None,
    ):
        self.clock = ManualClock()
        self.world = world(size)
        self.ranks = [
            self._make(r, size, unit, governed, accelerated, logical, rate, goal)
            for r in range(size)
        ]

    def _make(self, rank, size, unit, governed, accelerated, logical, rate, goal):
        clock, comm = self.clock, self.world.comm(rank)
        units = LogicalUnits() if logical else WallUnits(clock, unit)
        x = np.full(10, float(rank))
        state = RankState([x], load("reference"), units, accelerated)
        ledger, tally = Ledger(rank, size, goal), Tally(size)
        told, records = [], []
        pulse = Pulse(
            heartbeat=Heartbeat(comm, Pulse.length(size), 1.0, 100.0, clock),
            comm=comm,
            state=state,
            ledger=ledger,
            tally=tally,
            governor=Governor(AT_ONE, rate) if governed else None,
            coefficients=BASELINE if governed else AT_ONE,
            units=units,
            fixed_unit=unit is not None,
            sketcher=Sketcher([10], 0),
            averaging=SimpleNamespace(passed=told.append),
            clock=clock,
            metrics=SimpleNamespace(heartbeat=lambda **record: records.append(record)),
        )
        return SimpleNamespace(**{k: v for k, v in locals().items() if k != "self"})

    def work(self, gradients=0, exchanges=0, loss=None, seconds=1.0):
        """Every rank makes so many."""
        self.clock.advance(seconds)
        for one in self.ranks:
            for _ in range(gradients):
                one.ledger.count_gradient(loss, 1)
            for _ in range(exchanges):
                one.tally.exchanged(0, 0, 0.0)

    def beat(self, idle=()):
        """One round from beginning to end."""
        self.clock.advance(1e-9)
        ended = [False] * len(self.ranks)
        for _ in range(3):
            for one in self.ranks:
                ended[one.rank] |= one.pulse.poll(idle=one.rank in idle)
            if all(ended):
                return
            self.clock.advance(1e-9)
        raise AssertionError("the round did not end")

    def look(self):
        """Every rank looks a few times; a round takes place if one is due."""
        for _ in range(3):
            for one in self.ranks:
                one.pulse.poll(idle=False)

    @property
    def first(self):
        return self.ranks[0]


def test_totals_are_the_same_everywhere(world):
    ranks = Ranks(world)
    for one in ranks.ranks:
        for _ in range(one.rank + 1):
            one.ledger.count_gradient(None, 0)
    ranks.work(exchanges=4)
    ranks.beat()
    for one in ranks.ranks:
        assert one.ledger.total_gradients == one.pulse.beat.total_gradients == 6
        assert one.pulse.beat.total_exchanges == 6, "two ends make one exchange"
        assert one.told == [6]
        assert one.records[-1]["total_gradients"] == 6


def test_the_unit_is_ranks_times_seconds_by_gradients_of_all(world):
    ranks = Ranks(world)
    assert ranks.first.units.unit_seconds is None
    ranks.work(gradients=4, seconds=2.0)
    ranks.ranks[1].ledger.count_gradient(None, 0)
    ranks.beat()
    for one in ranks.ranks:
        assert one.units.unit_seconds == pytest.approx(3 * 2.0 / 13)
        assert one.pulse.beat.unit_seconds == one.units.unit_seconds


def test_the_unit_follows_the_recent_past(world):
    ranks = Ranks(world)
    for _ in range(30):
        ranks.work(gradients=10, seconds=1.0)
        ranks.beat()
    assert ranks.first.units.unit_seconds == pytest.approx(0.1)
    for _ in range(10):
        ranks.work(gradients=5, seconds=1.0)
        ranks.beat()
    assert ranks.first.units.unit_seconds == pytest.approx(0.2, rel=0.05)
    ranks.work(seconds=1.0)
    ranks.beat()
    assert 0.2 < ranks.first.units.unit_seconds < 0.35, "one pause is not forgotten"


def test_no_gradients_are_no_unit(world):
    ranks = Ranks(world)
    ranks.work(seconds=5.0)
    ranks.beat()
    assert ranks.first.units.unit_seconds is None
    assert ranks.first.pulse.beat.comm_rate == 0.0
    assert ranks.first.pulse.overall_rate == 0.0


def test_a_fixed_unit_stays(world):
    ranks = Ranks(world, unit=0.5)
    ranks.work(gradients=100, exchanges=6, seconds=1.0)
    ranks.beat()
    assert ranks.first.units.unit_seconds == 0.5
    # Six exchanges in two units.
    assert ranks.first.pulse.beat.comm_rate == pytest.approx(3.0)
    assert ranks.first.pulse.overall_rate == pytest.approx(3.0)


def test_in_logical_time_a_gradient_is_a_unit(world):
    ranks = Ranks(world, governed=False, logical=True)
    ranks.work(gradients=10, exchanges=5)
    ranks.beat()
    assert ranks.first.pulse.beat.unit_seconds == 1.0
    assert ranks.first.pulse.beat.comm_rate == pytest.approx(0.5)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=20))
def test_the_window_of_the_rate_forgets_as_much_as_comes(steps):
    sums, window = np.zeros(len(Field)), 100.0
    for step in steps:
        vector = np.zeros(len(Field))
        vector[Field.EXCHANGES] = step
        vector[Field.GRADIENTS] = 2 * step
        pulse_module.remember(sums, vector, Field.EXCHANGES, window)
    assert sums[Field.GRADIENTS] == pytest.approx(2 * sums[Field.EXCHANGES])
    assert sums[Field.EXCHANGES] <= max(window, max(steps)) + 1e-9
    if sum(steps) >= window:
        assert sums[Field.EXCHANGES] > 0.6 * min(window, sum(steps))


def test_one_busy_round_does_not_shake_the_rate(world):
    ranks = Ranks(world)
    for _ in range(60):
        ranks.work(gradients=10, exchanges=10)
        ranks.beat()
    assert ranks.first.pulse.beat.comm_rate == pytest.approx(1.0)
    ranks.work(gradients=10, exchanges=0)
    ranks.beat()
    assert 0.85 < ranks.first.pulse.beat.comm_rate < 1.0


def test_deaths_between_all_rounds_hide_neither_the_rate_nor_the_unit(world):
    """The sums of the survivors say little of those before: each rank has its steps."""
    ranks = Ranks(world, size=12)
    alive = list(ranks.ranks)
    for dies in range(8):
        for one in alive:
            for _ in range(20 + one.rank):  # the dead are no average of all
                one.ledger.count_gradient(1.0, 1)
            for _ in range(10):
                one.tally.exchanged(0, 0, 0.0)
        ranks.clock.advance(1.0)
        alive.remove(ranks.ranks[dies])
        summed = sum(one.pulse._contribution() for one in alive)
        members = tuple(one.rank for one in alive)
        for one in alive:
            one.pulse._heartbeat = SimpleNamespace(
                counted=len(alive), members=members, age=0.0, period_seconds=1.0
            )
            one.pulse._digest(summed)
    last = ranks.ranks[-1].pulse
    assert 10 / 31 < last.beat.comm_rate < 10 / 25
    assert 1 / 31 < last.beat.unit_seconds < 1 / 25
    assert last.beat.loss == pytest.approx(1.0)
    assert last._governor.rate == pytest.approx(last.beat.comm_rate, rel=0.1)


def steps(ranks, number, gradients, seconds):
    """So many steps of every rank, with what each forecasts; no round in between."""
    for _ in range(number):
        ranks.work(gradients=gradients, seconds=seconds)
        yield [one.pulse.forecast.total for one in ranks.ranks]


def test_others_are_extrapolated_between_rounds(world):
    ranks = Ranks(world, size=4)
    for _ in range(8):
        ranks.work(gradients=10)
        ranks.beat()
    for made, found in enumerate(steps(ranks, 5, 2, 0.2), 1):
        assert found == pytest.approx([320 + 8 * made] * 4, rel=1e-3)
    assert [one.ledger.total_gradients for one in ranks.ranks] == [330] * 4


def test_what_was_made_while_a_round_was_under_way_is_extrapolated(world):
    ranks = Ranks(world, size=2)
    for _ in range(8):
        ranks.work(gradients=10)
        ranks.beat()
    ranks.work(gradients=10)
    ranks.clock.advance(1e-9)
    for one in ranks.ranks:
        assert not one.pulse.poll(idle=False), "it begins"
    ranks.work(gradients=5, seconds=0.5)
    for one in ranks.ranks:
        assert one.pulse.poll(idle=False), "it ends"
    assert ranks.first.ledger.total_gradients == 185, "5 of the other one are not in it"
    assert ranks.first.pulse.forecast.total == pytest.approx(190, rel=1e-3)


def test_the_burst_at_the_start_is_not_extrapolated(world):
    ranks = Ranks(world, size=4)
    ranks.work()
    ranks.beat()
    ranks.work(gradients=16, seconds=1.0)  # until they wait for exchanges
    ranks.beat()
    (found,) = steps(ranks, 1, 1, 1.0)
    assert found[0] <= 64 + 4, "that it goes on so fast is not believed yet"
    ranks.beat()
    (found,) = steps(ranks, 1, 1, 1.0)
    assert found[0] == pytest.approx(68 + 4, rel=1e-3)


def test_a_round_begins_when_the_goal_should_be_reached(world):
    ranks = Ranks(world, size=4, goal=390)
    for _ in range(9):
        ranks.work(gradients=10)
        ranks.beat()
    rounds = ranks.first.pulse.heartbeat.rounds
    for _ in range(4):
        ranks.work(gradients=2, seconds=0.2)  # a round is due after 1 s
        ranks.look()
    assert ranks.first.pulse.heartbeat.rounds == rounds + 1
    assert all(one.ledger.stopped for one in ranks.ranks)


def test_gradients_of_an_earlier_run_count_in_no_rate(world):
    ranks = Ranks(world, size=3, goal=10_000)
    for one in ranks.ranks:
        own = {"gradients": 500, "samples": 0, "losses": [0.0, 0], "idle_seconds": 0.0}
        one.ledger.restore(own, [500] * 3)
        one.pulse.begin_after(1500)
    ranks.work(gradients=10, exchanges=4)
    ranks.beat()
    pulse = ranks.first.pulse
    assert pulse.beat.total_gradients == 1530
    assert pulse.beat.unit_seconds == pytest.approx(0.1)
    assert pulse.beat.comm_rate == pulse.overall_rate == pytest.approx(0.4)
    ranks.work(gradients=10)
    ranks.beat()
    ranks.clock.advance(0.5)
    assert pulse.forecast.total == pytest.approx(1570, rel=1e-3)
    states = [one.pulse.state() for one in ranks.ranks]
    pulse.restore(states[0], np.array([state["fields"] for state in states]))
    assert pulse.overall_rate == pytest.approx(0.2), "on the same number of ranks"
    fresh = Ranks(world, size=3).first.pulse
    fresh.restore(states[0], np.array([state["fields"] for state in states]))
    assert fresh._earlier == 1500, "a second start knows it, too"


def test_losses_are_of_the_last_round_that_had_any(world):
    ranks = Ranks(world)
    ranks.work(gradients=2, loss=3.0)
    ranks.beat()
    assert ranks.first.pulse.beat.loss == pytest.approx(3.0)
    ranks.work(gradients=2, loss=1.0)
    ranks.beat()
    assert ranks.first.pulse.beat.loss == pytest.approx(1.0)
    ranks.work(gradients=1)
    ranks.beat()
    assert ranks.first.pulse.beat.loss == pytest.approx(1.0)


def test_the_consensus_distance_is_estimated(world):
    ranks = Ranks(world)
    ranks.work()
    ranks.beat()
    distance = ranks.first.pulse.beat.consensus_distance
    # x is 0, 1 and 2 in ten places: 10 · 2/3, up to the sketch's chance.
    assert 1.0 < distance < 20.0
    assert ranks.first.records[-1]["consensus_distance"] == distance


# The constants.


def test_nothing_is_mixed_until_every_rank_has_exchanged(world):
    ranks = Ranks(world)
    ranks.work(gradients=10, exchanges=pulse_module.ENOUGH_EXCHANGES)
    ranks.ranks[2].tally.exchanges -= 1
    ranks.beat()
    assert all(one.pulse.coefficients == BASELINE for one in ranks.ranks)
    ranks.work(gradients=10, exchanges=10)
    ranks.beat()
    for one in ranks.ranks:
        assert one.pulse.coefficients.eta > 0
        assert one.pulse.alpha_tilde == AT_ONE.alpha_tilde
        assert one.pulse.working_coefficients == one.pulse.coefficients


def test_eta_follows_the_measured_rate_and_reaches_the_state(world):
    ranks = Ranks(world, rate=2.0)
    for _ in range(40):
        ranks.work(gradients=20, exchanges=10)
        ranks.beat()
    for one in ranks.ranks:
        assert one.pulse.coefficients.eta == pytest.approx(0.5 * AT_ONE.eta)
        theta = one.state._now()
        ranks.clock.advance(one.units.unit_seconds)
        assert one.state._now() - theta == pytest.approx(0.5 * AT_ONE.eta)


def test_more_exchanges_than_asked_for_do_not_raise_eta(world):
    ranks = Ranks(world, rate=1.0)
    for _ in range(40):
        ranks.work(gradients=5, exchanges=20)
        ranks.beat()
    assert ranks.first.pulse.coefficients.eta == pytest.approx(AT_ONE.eta)


def test_an_old_heartbeat_is_not_trusted(world):
    ranks = Ranks(world)
    for _ in range(30):
        ranks.work(gradients=10, exchanges=10)
        ranks.beat()
    ranks.world.silent.update(range(3))
    first = ranks.first
    assert first.pulse.alpha_tilde == 2.0
    seen = []
    for _ in range(12):
        ranks.clock.advance(1.0)
        first.pulse.poll(idle=False)
        seen.append((first.pulse.alpha_tilde, first.pulse.coefficients.eta > 0))
    assert seen[0] == (2.0, True)
    assert (1.0, True) in seen
    assert seen[-1] == (0.5, False)
    assert first.pulse.working_coefficients.eta > 0, "what it worked with is kept"
    assert [s for k, s in enumerate(seen) if k == 0 or s != seen[k - 1]] == [
        (2.0, True),
        (1.0, True),
        (0.5, False),
    ]


def test_the_baseline_stays_the_baseline(world):
    ranks = Ranks(world, accelerated=False)
    for _ in range(5):
        ranks.work(gradients=10, exchanges=10)
        ranks.beat()
    assert ranks.first.pulse.coefficients == BASELINE
    assert ranks.first.pulse.alpha_tilde == 0.5


def test_without_a_governor_constants_are_those_of_the_start(world):
    ranks = Ranks(world, governed=False)
    ranks.work(gradients=10, exchanges=1)
    ranks.beat()
    ranks.clock.advance(1000.0)
    ranks.first.pulse.poll(idle=False)
    assert ranks.first.pulse.coefficients == AT_ONE


# The end.


def test_all_are_done_when_each_has_said_so_once(world):
    ranks = Ranks(world)
    for one in ranks.ranks:
        one.ledger.retired = True
    ranks.beat(idle={0})
    assert not ranks.first.pulse.all_done
    ranks.beat(idle={1})  # the first is in another's exchange again
    assert not ranks.first.pulse.all_done
    ranks.beat(idle={2})
    assert all(one.pulse.all_done for one in ranks.ranks)
    assert not ranks.first.pulse.poll(idle=True), "no round begins any more"
    assert len(ranks.world.calls) == 3


def test_rounds_follow_each_other_at_once_when_a_rank_has_left(world):
    ranks = Ranks(world)
    for one in ranks.ranks:
        one.ledger.retired = True
    for _ in range(5):
        ranks.beat()  # without that any second passed
    assert len(ranks.world.calls) == 5


def test_the_vector_has_room_for_all():
    assert Pulse.length(7) == 2 * len(Field) + 7 + CELLS + 1
    assert math.isnan(pulse_module.Beat().loss)
