"""The event loop beside the float64 list of events, and what it must keep."""

import numpy as np
import pytest

from acidmpi.config.simulate import SimulateConfig
from acidmpi.dynamics.events import Exchange, Gradient, Jump, Reference, Snapshot
from acidmpi.simulate import asynchronous
from acidmpi.simulate.cluster import Cluster


class Witness:
    """Writes down every event of a simulation as one of the reference's."""

    def __init__(self, simulation, monkeypatch):
        self.events = []
        self._simulation = simulation
        self._label = 0
        cluster, thetas = simulation._cluster, simulation._thetas
        self._wrap(monkeypatch, simulation, "_exchange", self._exchanged)
        self._wrap(monkeypatch, simulation, "_read", self._read)
        self._wrap(monkeypatch, simulation, "_land", self._landed)
        self._wrap(monkeypatch, cluster, "update", self._updated)
        self._theta = thetas.at

    @staticmethod
    def _wrap(monkeypatch, owner, name, before):
        inner = getattr(owner, name)

        def wrapped(*arguments):
            before(*arguments)
            return inner(*arguments)

        monkeypatch.setattr(owner, name, wrapped)

    def _exchanged(self, event, time):
        thetas = self._theta(event.i, time), self._theta(event.j, time)
        self.events.append(Exchange(event.i, event.j, *thetas))

    def _read(self, event, time):
        for rank in (event.i, event.j):
            theta = self._theta(rank, time)
            self.events.append(Snapshot(rank, theta, event.time, 0, 5))

    def _landed(self, event, m, thetas, time):
        self.events.append(Jump(event.i, event.j, event.time, 0))
        self.events.append(Jump(event.j, event.i, event.time, 0))

    def _updated(self, rank, theta, update):
        self.events.append(Gradient(rank, theta, update.copy()))


def replayed(simulation, events):
    constants = simulation.outcome.coefficients
    reference = Reference(simulation._start, constants)
    reference.replay(events)
    for rank, theta in zip(reference.ranks, simulation._thetas.all(20.0), strict=True):
        rank.advance(theta)
    return reference


def check_against_the_list(simulation, monkeypatch):
    witness = Witness(simulation, monkeypatch)
    outcome = simulation.run()
    assert outcome.totals[0].exchanges > 3
    reference = replayed(simulation, witness.events)
    x, x_tilde = simulation._cluster.now(simulation._thetas.all(20.0))
    scale = 1e-11 * max(1.0, np.abs(reference.x_tilde).max())
    np.testing.assert_allclose(x, reference.x, rtol=0, atol=scale)
    np.testing.assert_allclose(x_tilde, reference.x_tilde, rtol=0, atol=scale)
    assert outcome.distances[-1] == pytest.approx(reference.consensus_distance)


CASES = {
    "averaging": {},
    "baseline": {"method": "async"},
    "quadratic": {"workload": "quadratic", "lr": 0.1},
    "momentum": {"workload": "quadratic", "momentum": 0.9},
    "random speeds": {"workload": "quadratic", "speeds": "random"},
    "slow exchanges": {"workload": "quadratic", "transfer_units": 0.3},
    "local time": {"workload": "quadratic", "local_time": True, "speeds": "random"},
    "last peer": {"rematch": 0.9},
    "wrong rate": {"assumed_rate": 1.5},
}


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_the_list_of_events(pairs, monkeypatch, case):
    check_against_the_list(pairs(**CASES[case]), monkeypatch)


@pytest.mark.parametrize("order", ["raw", "authors"])
def test_the_list_catches_other_orders(pairs, monkeypatch, order):
    with pytest.raises(AssertionError):
        check_against_the_list(pairs(order=order), monkeypatch)


def test_the_list_catches_a_jump_that_is_not_carried(pairs, monkeypatch):
    jump = Cluster.jump
    monkeypatch.setattr(
        Cluster, "jump", lambda self, rank, m, since=0.0: jump(self, rank, m)
    )
    with pytest.raises(AssertionError):
        check_against_the_list(pairs(transfer_units=0.3), monkeypatch)


OVERLAP = {"workload": "quadratic", "transfer_units": 0.3, "overlap": True}


def test_the_list_catches_overlapped_exchanges(pairs, monkeypatch):
    with pytest.raises(AssertionError):
        check_against_the_list(pairs(**OVERLAP), monkeypatch)


def test_overlapped_exchanges_keep_the_mean(pairs):
    assert pairs(**OVERLAP).run().mean_drift < 1e-12


@pytest.mark.parametrize("case", CASES)
def test_the_mean_changes_by_gradients_only(pairs, case):
    assert pairs(**CASES[case]).run().mean_drift < 1e-12


def test_the_raw_order_keeps_the_mean_and_the_authors_order_loses_it(pairs):
    assert pairs(order="raw").run().mean_drift < 1e-12
    assert pairs(order="authors").run().mean_drift > 1e-5


def test_safety_zero_is_the_baseline_bit_for_bit(pairs):
    accelerated = pairs(workload="quadratic", safety=0.0)
    baseline = pairs(workload="quadratic", method="async")
    assert accelerated.run().distances == baseline.run().distances
    assert np.array_equal(accelerated._cluster.x, baseline._cluster.x)


def test_the_same_seed_gives_the_same_run_and_another_one_another(pairs):
    first, again, other = (pairs(workload="quadratic", seed=s).run() for s in (1, 1, 2))
    assert first.samples == again.samples != other.samples


def cost(size):
    config = {"workload": "quadratic", "units": 10.0, "samples": 2, "dimension": 2}
    options = SimulateConfig(ranks=size, **config)
    workload = asynchronous_workload(options)
    graph = asynchronous_graph(options)
    outcome = asynchronous.PairSimulation(options, 0, workload, graph).run()
    last = outcome.samples[-1]
    return outcome.touched / (last.gradients + last.exchanges)


def asynchronous_workload(options):
    from acidmpi.simulate.workloads import make_workload

    return make_workload(options, 0)


def asynchronous_graph(options):
    from acidmpi.simulate.course import graph_of

    return graph_of(options)


def test_an_event_costs_the_same_however_many_ranks_there_are():
    assert cost(256) == pytest.approx(cost(8), rel=0.1)


def test_counting_catches_an_event_that_touches_all_ranks(monkeypatch):
    jump = Cluster.jump

    def diligent(self, rank, m, since=0.0):
        for other in range(self.size):
            self.at(other, self._theta[other])
        jump(self, rank, m, since)

    monkeypatch.setattr(Cluster, "jump", diligent)
    assert cost(256) > 5 * cost(8)


def test_a_rank_that_lags_waits_for_its_exchanges(pairs):
    free = pairs(workload="quadratic", ranks=4, units=100.0).run()
    tied = pairs(workload="quadratic", ranks=4, units=100.0, max_lag=1).run()
    assert sum(t.idle_units for t in free.totals) == 0
    assert all(t.gradients - t.exchanges <= 2 for t in tied.totals)
    assert sum(t.idle_units for t in tied.totals) > 0


def test_without_exchanges_ranks_that_may_not_lag_stop(pairs):
    outcome = pairs(workload="quadratic", comm_rate=0.0, max_lag=0).run()
    assert all(t.gradients == 20 for t in outcome.totals[1:])


def test_stale_gradients_are_of_where_x_was_when_they_began(pairs, monkeypatch):
    seen = {True: [], False: []}
    for stale, places in seen.items():
        simulation = pairs(workload="quadratic", noise=0.0, stale=stale)
        inner = simulation._workload.gradient

        def gradient(rank, x, inner=inner, places=places):
            if rank == 0:
                places.append(x.copy())
            return inner(rank, x)

        monkeypatch.setattr(simulation._workload, "gradient", gradient)
        simulation.run()
    assert np.array_equal(seen[True][0], np.zeros(5))
    assert np.array_equal(seen[True][1], seen[False][1]) is False


def test_divergence_ends_a_run(pairs):
    outcome = pairs(ranks=16, units=2000.0, assumed_rate=8.0, samples=100).run()
    assert outcome.diverged
    assert outcome.times[-1] < 2000.0
