"""Speeds, meetings, thetas, workloads: the parts of a simulation by themselves."""

from itertools import islice, pairwise

import numpy as np
import pytest

from acidmpi.config.simulate import SimulateConfig
from acidmpi.pairing.events import Event, schedule_events
from acidmpi.simulate.meetings import Reservations, meetings
from acidmpi.simulate.speeds import Speeds
from acidmpi.simulate.thetas import Thetas
from acidmpi.simulate.workloads import make_workload
from acidmpi.topology import make_topology


def test_the_unit_is_the_mean_time_of_a_gradient_over_all_ranks():
    config = SimulateConfig(ranks=4, speeds="stragglers", straggler_factor=3.0)
    speeds = Speeds(config, 0)
    assert speeds.unit_seconds == pytest.approx(1 / np.mean([1 / 3, 1, 1, 1]))
    assert sum(1 / mean for mean in speeds.means) == pytest.approx(4)
    assert speeds.duration(0) == pytest.approx(3 * speeds.duration(1))


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
def test_random_speeds_have_mean_one_and_the_spread_asked_for(spread):
    config = SimulateConfig(speeds="random", speed_spread=spread)
    speeds = Speeds(config, 1)
    drawn = [speeds.duration(0) for _ in range(20_000)]
    assert np.mean(drawn) == pytest.approx(1.0, rel=0.05)
    assert np.std(drawn) == pytest.approx(spread, rel=0.1)


def test_ideal_meetings_are_the_schedule_of_real_ranks():
    ring = make_topology("ring", 8)
    ours = list(islice(meetings(ring, 1.0, 3, None), 50))
    assert ours == list(islice(schedule_events(ring, 1.0, 3), 50))


def repeats(rematch, size=16, count=4000):
    """Share of exchanges whose two ranks had each other as their last peers."""
    found = list(islice(meetings(make_topology("ring", size), 1.0, 0, rematch), count))
    last, again = {}, 0
    for event in found:
        again += last.get(event.i) == event.j and last.get(event.j) == event.i
        last[event.i], last[event.j] = event.j, event.i
    rate = 2 * count / size / found[-1].time
    return again / count, rate


@pytest.mark.parametrize("rematch", [0.0, 0.5, 0.9])
def test_rematching_keeps_the_rate_and_repeats_more(rematch):
    share, rate = repeats(rematch)
    assert rate == pytest.approx(1.0, rel=0.1)
    assert repeats(rematch)[0] == share
    chance = repeats(None)[0]
    assert share > 1.3 * chance if rematch == 0.9 else True
    assert share < 0.7 * chance if rematch == 0.0 else True


def test_exchanges_that_take_time_never_share_a_rank():
    reservations = Reservations(8, 0.7)
    events = islice(schedule_events(make_topology("ring", 8), 1.0, 0), 200)
    spans = [(reservations.begin(e), e) for e in events]
    for rank in range(8):
        begins = sorted(b for b, e in spans if rank in (e.i, e.j))
        assert all(later - b >= 0.7 - 1e-9 for b, later in pairwise(begins))
    assert reservations.begin(Event(1e6, 0, 1)) == 1e6


def test_one_unit_for_all_or_one_for_each():
    shared = Thetas(0.1, [1.0, 2.0], local=False)
    assert shared.at(0, 5.0) == shared.at(1, 5.0) == 0.5
    own = Thetas(0.1, [1.0, 2.0], local=True)
    assert own.all(5.0) == pytest.approx([0.5, 0.25])
    own.learn(1, 5.0, 4.0)
    assert own.at(1, 5.0) == pytest.approx(0.25)
    assert own.at(1, 8.0) == pytest.approx(0.25 + 0.1 * 3 / 3.0)


@pytest.mark.parametrize("workload", ["quadratic", "digits"])
def test_gradients_are_those_of_the_loss(workload):
    own = {"quadratic": {"dimension": 4, "noise": 0.0}, "digits": {"batch_size": 1437}}
    config = SimulateConfig(workload=workload, ranks=3, **own[workload])
    problem = make_workload(config, 0)
    chance = np.random.default_rng(0)
    x = 0.1 * chance.standard_normal(problem.start().shape[1])
    along = chance.standard_normal(x.shape)
    step = 1e-5

    def loss(x):
        if workload == "quadratic":
            return problem.evaluate(x)[0]
        return problem.gradient(0, x)[0]

    slope = (loss(x + step * along) - loss(x - step * along)) / (2 * step)
    mean = np.mean([problem.gradient(rank, x)[1].copy() for rank in range(3)], axis=0)
    assert mean @ along == pytest.approx(slope, rel=1e-5)


def test_the_quadratic_is_the_problem_of_the_trainer():
    from acidmpi.tasks.quadratic import Quadratic

    config = SimulateConfig(workload="quadratic", ranks=3, dimension=6)
    ours = make_workload(config, 5)
    x = np.arange(6.0)
    for rank in range(3):
        theirs = Quadratic(seed=5, rank=rank, size=3, dimension=6, dtype=np.float64)
        generator = theirs.generator
        expected = theirs.gradient(x, generator)
        np.testing.assert_allclose(ours.gradient(rank, x)[1], expected, rtol=1e-12)
        assert ours.evaluate(x)[0] == pytest.approx(theirs.loss(x))


def test_uneven_shares_differ():
    config = SimulateConfig(workload="digits", ranks=3, dirichlet=0.1, batch_size=64)
    problem = make_workload(config, 0)
    x = problem.start()[0]
    gradients = [problem.gradient(rank, x)[1] for rank in range(3)]
    assert np.linalg.norm(gradients[0] - gradients[1]) > 0.1
