"""Methods in rounds: what they compute, whom they wait for, what they send."""

import numpy as np
import pytest

from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.synchronous import RoundSimulation
from acidmpi.simulate.workloads import make_workload

SMALL = {"workload": "quadratic", "ranks": 8, "units": 24.0, "dimension": 5}


def rounds(**options):
    config = SimulateConfig(**{**SMALL, **options})
    return RoundSimulation(config, 0, make_workload(config, 0))


def test_gossip_is_exact_after_as_many_rounds_as_there_are_powers_of_two():
    simulation = rounds(method="gossip", workload="averaging", units=3.0, samples=3)
    outcome = simulation.run()
    assert outcome.distances[0] > 1
    assert outcome.distances[-1] < 1e-25
    assert outcome.mean_drift < 1e-12


def test_gossip_with_a_wrong_peer_would_not_be():
    simulation = rounds(method="gossip", workload="averaging", units=3.0, samples=3)
    for _ in range(3):
        simulation._round = 0
        simulation.gossip()
    assert np.ptp(simulation._x, axis=0).min() > 0.1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_allreduce_is_one_rank_with_the_mean_gradient(momentum):
    simulation = rounds(method="allreduce", momentum=momentum)
    outcome = simulation.run()
    workload = make_workload(simulation._config, 0)
    x, velocity = np.zeros(5), np.zeros(5)
    for _ in range(outcome.totals[0].gradients):
        gradients = [workload.gradient(rank, x)[1].copy() for rank in range(8)]
        velocity = momentum * velocity - 0.02 * np.mean(gradients, axis=0)
        x = x + velocity
    np.testing.assert_allclose(simulation._x, np.tile(x, (8, 1)), atol=1e-12)


def test_local_sgd_agrees_only_when_it_averages():
    outcome = rounds(method="localsgd", local_steps=4, samples=24).run()
    equal = [d < 1e-20 for d in outcome.distances[1:]]
    assert equal == [step % 4 == 0 for step in range(1, 25)]
    assert not outcome.diverged


@pytest.mark.parametrize(
    "options", [("allreduce", {}), ("localsgd", {"local_steps": 2})]
)
def test_all_wait_for_a_straggler(options):
    method, own = options
    outcome = rounds(method=method, speeds="stragglers", **own).run()
    steps = outcome.totals[0].gradients
    seconds = outcome.times[-1] * outcome.unit_seconds
    assert seconds / steps == pytest.approx(3.0, rel=0.1)
    assert outcome.totals[0].idle_units == pytest.approx(0.0)
    assert outcome.totals[1].idle_units > 0.5 * outcome.times[-1]


def test_gossip_waits_for_one_peer_at_a_time():
    outcome = rounds(method="gossip", speeds="stragglers", units=4.0, samples=2).run()
    waits = sorted(t.idle_units > 0 for t in outcome.totals)
    assert waits.count(False) >= 1
    assert rounds(method="gossip").run().totals[3].idle_units == 0


def test_bytes():
    gossip = rounds(method="gossip").run().totals[0]
    assert gossip.bytes_sent == 4 * 5 * gossip.gradients
    allreduce = rounds(method="allreduce").run().totals[0]
    assert allreduce.bytes_sent == int(4 * 5 * 2 * 7 / 8) * allreduce.gradients


def test_a_single_rank_has_nobody_to_wait_for():
    for method in ("gossip", "allreduce", "localsgd"):
        outcome = rounds(method=method, ranks=1, speeds="random").run()
        assert outcome.totals[0].idle_units == 0
        assert outcome.distances[-1] == 0
