"""Ranks with the real protocol in virtual time."""

import itertools

import numpy as np
import pytest

from acidmpi.dynamics.coefficients import BASELINE
from acidmpi.dynamics.events import Exchange, Reference
from acidmpi.errors import ConfigError
from acidmpi.pairing.events import schedule_events
from acidmpi.simulate import protocol
from acidmpi.simulate.network import GradientTimes, Link, Network
from acidmpi.simulate.protocol import ProtocolSimulation
from acidmpi.simulate.protocol_members import ProtocolOptions
from acidmpi.topology.make import make_topology

UNIT = 0.05


def options(size=8, graph="ring", **changes):
    usual = {"unit_seconds": UNIT, "network": Network(Link(1e-3))}
    return ProtocolOptions(topology=make_topology(graph, size), **{**usual, **changes})


def averaging(chosen, length=16):
    chance = np.random.default_rng([chosen.seed, 1])
    start = chance.standard_normal((chosen.topology.size, length))
    return ProtocolSimulation(start, chosen)


def slope(chosen, units, length=16):
    moments = averaging(chosen, length).run([UNIT * t for t in units])
    distances = [moment.consensus_distance for moment in moments]
    return -np.polyfit(units, np.log(distances), 1)[0]


class Quadratic:
    """Half the squared distance to a point of each rank's own."""

    def __init__(self, size, length=4, lr=0.05):
        self.targets = np.random.default_rng(0).standard_normal((size, length))
        self.lr = lr

    def update(self, rank, x):
        return -self.lr * (x - self.targets[rank])

    def loss(self, x):
        return 0.5 * float(((x - self.targets) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("method", ["a2cid2", "async"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_the_mean_stays_whatever_is_on_its_way(method, pieces):
    slow = Network(Link(0.1 * UNIT, 1e6), spread=0.7)
    chosen = options(
        method=method, network=slow, pieces=pieces, message_bytes=0.3 * UNIT * 1e6
    )
    simulation = averaging(chosen)
    for units in range(1, 60):
        simulation.run([UNIT * units])
        assert simulation.drift() < 1e-13


def test_a_difference_that_is_not_antisymmetric_is_found(monkeypatch):
    apply = protocol._Transfer.apply

    def apply_what_is_there_now(transfer, side, chunk):
        sent = transfer.sent
        peer = transfer.ends[1 - side]
        now = peer.read()[chunk.start : chunk.stop], 0.0  # not what was sent
        transfer.sent = {**sent, (peer.rank, chunk.start): now}
        apply(transfer, side, chunk)
        transfer.sent = sent

    monkeypatch.setattr(protocol._Transfer, "apply", apply_what_is_there_now)
    simulation = averaging(options())
    simulation.run([UNIT * 20])
    assert simulation.drift() > 1e-3


def test_updates_are_all_that_moves_the_mean():
    times = GradientTimes.of(8, 0.02, spread=0.5)
    simulation = learning(options(gradients=times, unit_seconds=None))
    simulation.run([2.0])
    assert simulation.drift() < 1e-14


def test_a_schedule_without_delays_is_the_list_of_events():
    """The baseline, because real ranks mix only once a rate has been measured."""
    chosen = options(
        6, method="async", pairing="schedule", network=Network(), unit_seconds=1.0
    )
    simulation = averaging(chosen)
    reference = Reference([member.x for member in simulation.members], BASELINE)
    events = schedule_events(chosen.topology, 1.0, chosen.seed)
    for time, i, j in itertools.takewhile(lambda e: e.time < 20, events):
        reference.replay([Exchange(i, j, time, time)])
    moment = simulation.run([20.0])[0]
    found = np.stack([member.read() for member in simulation.members])
    np.testing.assert_allclose(found, reference.x, rtol=1e-12, atol=1e-13)
    assert moment.exchanges > 40


def test_equal_seeds_give_equal_runs_and_others_do_not():
    runs = [averaging(options(seed=seed)).run([1.0])[0] for seed in (3, 3, 4)]
    assert str(runs[0]) == str(runs[1])
    assert str(runs[0]) != str(runs[2])


def test_a_rank_is_in_one_exchange_at_a_time(monkeypatch):
    busy = set()
    meet, land = protocol.ProtocolSimulation._meet, protocol.ProtocolSimulation._land

    def watched_meet(self, rank, peer):
        assert rank not in busy
        busy.add(rank)
        meet(self, rank, peer)

    def watched_land(self, transfer, side, chunk, last, began):
        rank = transfer.ends[side].rank
        assert rank in busy
        if last:
            busy.remove(rank)
        land(self, transfer, side, chunk, last, began)

    monkeypatch.setattr(protocol.ProtocolSimulation, "_meet", watched_meet)
    monkeypatch.setattr(protocol.ProtocolSimulation, "_land", watched_land)
    chosen = options(
        saturated=True, pieces=2, message_bytes=1.0, network=Network(Link(1e-3, 1e3))
    )
    simulation = averaging(chosen)
    assert simulation.run([1.0])[0].exchanges > 500


def test_decay_on_a_ring_of_16_is_what_real_ranks_measured():
    """docs/benchmarks/2026-11-21-cpu-2-cores.md: 0.315 and 0.123 a unit."""
    units = np.linspace(20, 80, 30)
    for method, measured in (("a2cid2", 0.315), ("async", 0.123)):
        found = [
            slope(options(16, method=method, seed=seed), units) for seed in range(3)
        ]
        assert np.mean(found) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("pairing", ["handshake", "schedule", "fifo"])
def test_every_pairing_keeps_the_rate(pairing):
    simulation = averaging(options(12, pairing=pairing, comm_rate=2.0))
    simulation.run([UNIT * 100])
    assert simulation.counts().comm_rate == pytest.approx(2.0, rel=0.12)


@pytest.mark.parametrize(("size", "most"), [(16, 3.2), (32, 3.2)])
def test_a_saturated_ring_needs_few_messages_and_rarely_repeats(size, most):
    """The bounds that `acidmpi.bench pairing` holds real ranks to."""
    chosen = options(
        size,
        saturated=True,
        unit_seconds=0.01,
        network=Network(Link(0.2e-3, 1e6)),
        message_bytes=1e3,
    )
    simulation = averaging(chosen, 1)
    simulation.run([0.2])
    start = simulation.totals()
    simulation.run([0.6])
    counts = simulation.counts(since=start)
    assert counts.messages_per_exchange < most
    assert counts.repeated < 0.1


def learning(chosen):
    size = chosen.topology.size
    return ProtocolSimulation(np.zeros((size, 4)), chosen, Quadratic(size))


def test_ranks_learn_at_their_own_pace_and_measure_the_unit():
    times = GradientTimes.of(8, 0.02, spread=0.2, straggler=3.0)
    simulation = learning(options(gradients=times, unit_seconds=None))
    start, end = simulation.run([1e-6, 10.0])
    made = [member.ledger.gradients for member in simulation.members]
    assert made[0] == pytest.approx(3 * made[-1], rel=0.1)
    loss = Quadratic(8).loss
    assert loss(end.mean) < loss(start.mean)
    unit = simulation.members[0].units.unit_seconds
    assert unit == pytest.approx(times.unit_seconds, rel=0.1)
    assert simulation.counts().comm_rate == pytest.approx(1.0, rel=0.1)
    assert simulation.counts().idle_share == 0


def test_a_gradient_is_taken_on_the_x_that_was_read_when_it_began():
    seen = []

    class Watching(Quadratic):
        def update(self, rank, x):
            seen.append((simulation._events.now(), rank, x.copy()))
            return super().update(rank, x)

    chosen = options(2, gradients=GradientTimes((1.0, 1.0)), comm_rate=0.0)
    learner = Watching(2)
    simulation = ProtocolSimulation.__new__(ProtocolSimulation)
    simulation._events = type("Zero", (), {"now": staticmethod(lambda: 0.0)})
    simulation.__init__(np.zeros((2, 4)), chosen, learner)
    simulation.run([2.5])
    assert [(time, rank) for time, rank, _ in seen] == [
        (float(t), r) for t in range(3) for r in range(2)
    ]
    expected = 0.05 * learner.targets[0]
    np.testing.assert_allclose(seen[2][2], expected)


@pytest.mark.parametrize(("max_lag", "least", "most"), [(4, 0.5, 1.0), (None, 0, 0)])
def test_a_rank_waits_when_communication_falls_behind(max_lag, least, most):
    """An exchange takes 5 gradients; at one exchange a gradient most time is idle."""
    slow = Network(Link(1e-4, 1e6))
    times = GradientTimes.of(4, 0.02)
    chosen = options(
        4,
        gradients=times,
        unit_seconds=None,
        network=slow,
        message_bytes=0.1 * 1e6,
        max_lag=max_lag,
    )
    simulation = learning(chosen)
    simulation.run([20.0])
    assert least <= simulation.counts().idle_share <= most


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"unit_seconds": None}, "unit_seconds"),
        ({"size": 1}, "2 to 256"),
        ({"size": 300}, "2 to 256"),
        ({"gradients": GradientTimes((1.0,))}, "1 for 8 ranks"),
        ({"pieces": 0}, "at least 1 piece"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        options(**changes)
