"""The reference against a rank that carries its jumps, and the invariants of both."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.dynamics.events import Exchange, Gradient, Jump, Reference, Snapshot
from acidmpi.dynamics.mixing import carried_jump, mixing_weight

ACID = Coefficients(eta=0.0350, alpha=0.5, alpha_tilde=7.262)
CHUNKS = ((0, 1), (1, 4), (4, 6))
LENGTH = 6
RANKS = 3


class Programme:
    """A random list of events: chunked exchanges, with gradients landing anywhere."""

    def __init__(self, seed, exchanges=4, mixing=True):
        self._random = random.Random(seed)
        self._mixing = mixing
        self.thetas = [0.0] * RANKS
        self.events = []
        for label in range(exchanges):
            self._exchange(label)

    def _pass_time(self, rank):
        if self._mixing:
            self.thetas[rank] += self._random.expovariate(5)
        return self.thetas[rank]

    def _gradient(self):
        rank = self._random.randrange(RANKS)
        update = np.array([self._random.gauss(0, 1) for _ in range(LENGTH)])
        self.events.append(Gradient(rank, self._pass_time(rank), update))

    def _exchange(self, label):
        ends = self._random.sample(range(RANKS), 2)
        unread = [(rank, chunk) for rank in ends for chunk in CHUNKS]
        unapplied = list(unread)
        while unapplied:
            ready = [
                item for item in unapplied if not {item[1]} & {c for _, c in unread}
            ]
            kind = self._random.choice(["gradient", "read", "read", "apply", "apply"])
            if kind == "gradient":
                self._gradient()
            elif kind == "read" and unread:
                rank, (start, stop) = self._take(unread, unread)
                theta = self._pass_time(rank)
                self.events.append(Snapshot(rank, theta, label, start, stop))
            elif kind == "apply" and ready:
                rank, (start, _) = self._take(ready, unapplied)
                self.events.append(Jump(rank, sum(ends) - rank, label, start))

    def _take(self, choices, items):
        chosen = self._random.choice(choices)
        items.remove(chosen)
        return chosen

    @property
    def updates(self):
        gradients = [e.update for e in self.events if isinstance(e, Gradient)]
        return np.sum(gradients, axis=0) if gradients else np.zeros(LENGTH)


class Carrier:
    """One rank as the worker does it: only gradients move the state's theta."""

    def __init__(self, x):
        self.x, self.x_tilde, self.theta = x.copy(), x.copy(), 0.0
        self._chunks = {}

    def gradient(self, theta, update):
        flow = mixing_weight(theta - self.theta) * (self.x_tilde - self.x)
        self.x, self.x_tilde = self.x + flow + update, self.x_tilde - flow + update
        self.theta = theta

    def snapshot(self, theta, label, here):
        weight = mixing_weight(theta - self.theta)
        sent = self.x[here] + weight * (self.x_tilde[here] - self.x[here])
        self._chunks[label, here.start] = theta, here, sent
        return sent

    def jump(self, label, start, received, coefficients):
        theta, here, sent = self._chunks.pop((label, start))
        m = sent - received
        _, alpha, alpha_tilde = coefficients
        a, b = self.shares(alpha, alpha_tilde, self.theta - theta)
        self.x[here] -= a * m
        self.x_tilde[here] -= b * m

    shares = staticmethod(carried_jump)


class Uncarried(Carrier):
    """Planted fault: the jump of a snapshot is applied as if no time had passed."""

    @staticmethod
    def shares(alpha, alpha_tilde, elapsed):
        return alpha, alpha_tilde


class AuthorsOrder(Carrier):
    """Planted fault: sends x unmixed, mixes its own, then subtracts."""

    def snapshot(self, theta, label, here):
        super().snapshot(theta, label, here)
        return self.x[here].copy()


class Network:
    """Ranks that carry, with the face of `Reference`."""

    def __init__(self, make, x, coefficients):
        self.ranks = [make(row) for row in x]
        self._coefficients = coefficients
        self._sent = {}

    def replay(self, events):
        for event in events:
            rank = self.ranks[event.rank]
            if isinstance(event, Gradient):
                rank.gradient(event.theta, event.update)
            elif isinstance(event, Snapshot):
                here = slice(event.start, event.stop)
                sent = rank.snapshot(event.theta, event.label, here)
                self._sent[event.rank, event.label, event.start] = sent
            else:
                received = self._sent[event.peer, event.label, event.start]
                rank.jump(event.label, event.start, received, self._coefficients)

    def flush(self, thetas):
        for rank, theta in zip(self.ranks, thetas, strict=True):
            rank.gradient(theta, 0.0)

    @property
    def x(self):
        return np.stack([rank.x for rank in self.ranks])

    @property
    def x_tilde(self):
        return np.stack([rank.x_tilde for rank in self.ranks])

    @property
    def mean(self):
        return (self.x + self.x_tilde).mean(axis=0) / 2


def start(seed):
    return np.random.default_rng(seed).standard_normal((RANKS, LENGTH))


def check_carrying(make, seed):
    programme = Programme(seed)
    network = Network(make, start(seed), ACID)
    network.replay(programme.events)
    network.flush(programme.thetas)
    reference = Reference(start(seed), ACID)
    reference.replay(programme.events)
    for rank, theta in zip(reference.ranks, programme.thetas, strict=True):
        rank.advance(theta)
    scale = 1e-12 * max(1.0, np.abs(reference.x_tilde).max())
    np.testing.assert_allclose(network.x, reference.x, rtol=0, atol=scale)
    np.testing.assert_allclose(network.x_tilde, reference.x_tilde, rtol=0, atol=scale)


def check_mean(network, seed):
    programme = Programme(seed)
    network.replay(programme.events)
    expected = start(seed).mean(axis=0) + programme.updates / RANKS
    np.testing.assert_allclose(network.mean, expected, rtol=0, atol=1e-10)


class PlainAveraging:
    """The baseline with no x_tilde at all."""

    def __init__(self, x):
        self.x = x.copy()
        self._sent = {}

    def replay(self, events):
        for event in events:
            if isinstance(event, Gradient):
                self.x[event.rank] += event.update
            elif isinstance(event, Snapshot):
                sent = self.x[event.rank, event.start : event.stop].copy()
                self._sent[event.rank, event.label, event.start] = sent
            else:
                sent = self._sent[event.rank, event.label, event.start]
                received = self._sent[event.peer, event.label, event.start]
                stop = event.start + len(sent)
                self.x[event.rank, event.start : stop] -= 0.5 * (sent - received)


def check_plain(network, plain, events):
    """Bit for bit, x and x_tilde both."""
    network.replay(events)
    plain.replay(events)
    assert np.array_equal(network.x, plain.x)
    assert np.array_equal(network.x_tilde, plain.x)


@given(st.integers(0, 10**6))
def test_carried_jumps_give_the_result_of_the_event_list(seed):
    check_carrying(Carrier, seed)


@pytest.mark.parametrize("fault", [Uncarried, AuthorsOrder])
def test_event_list_catches(fault):
    with pytest.raises(AssertionError):
        check_carrying(fault, seed=1)


@given(st.integers(0, 10**6))
def test_mean_changes_by_gradients_only(seed):
    check_mean(Reference(start(seed), ACID), seed)
    check_mean(Network(Carrier, start(seed), ACID), seed)


def test_mean_catches_the_authors_order():
    with pytest.raises(AssertionError):
        check_mean(Network(AuthorsOrder, start(1), ACID), seed=1)


class OwnAlphaTilde(Reference):
    """Planted fault: ranks that do not settle on one alpha_tilde."""

    def _happen(self, event):
        rank = event.rank
        self._coefficients = ACID._replace(alpha_tilde=7.0 + rank)
        super()._happen(event)


def test_mean_catches_ends_that_disagree_on_alpha_tilde():
    with pytest.raises(AssertionError):
        check_mean(OwnAlphaTilde(start(1), ACID), seed=1)


@given(st.integers(0, 10**6))
def test_without_mixing_chunked_exchanges_are_plain_averaging(seed):
    events = Programme(seed, mixing=False).events
    network = Network(Carrier, start(seed), BASELINE)
    check_plain(network, PlainAveraging(start(seed)), events)


def test_plain_averaging_catches_shares_of_acceleration():
    events = Programme(1, mixing=False).events
    network = Network(Carrier, start(1), ACID._replace(eta=0.0))
    with pytest.raises(AssertionError):
        check_plain(network, PlainAveraging(start(1)), events)


@given(st.integers(0, 10**6), st.floats(0, 0.2))
def test_whole_exchanges_without_mixing_are_plain_averaging(seed, eta):
    """Bit for bit, whatever eta: with the baseline's shares x_tilde never leaves x."""
    generator = random.Random(seed)
    x = start(seed)
    reference = Reference(x, BASELINE)
    for time in range(20):
        i, j = generator.sample(range(RANKS), 2)
        update = generator.gauss(0, 1)
        theta = eta * time
        reference.replay([Gradient(i, theta, update), Exchange(i, j, theta, theta)])
        x[i] += update
        m = x[i] - x[j]
        x[i] -= 0.5 * m
        x[j] += 0.5 * m
    assert np.array_equal(reference.x, x)
    assert np.array_equal(reference.x_tilde, x)


def together(i, j, thetas, label="one"):
    """Both ends read all chunks at one moment."""
    return [
        Snapshot(rank, thetas[rank], label, first, stop)
        for rank in (i, j)
        for first, stop in CHUNKS
    ]


def jumps(i, j, label="one"):
    return [
        Jump(*ends, label, first) for ends in ((i, j), (j, i)) for first, _ in CHUNKS
    ]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 100))
def test_gradients_that_land_inside_come_after_the_exchange(theta, other, more, seed):
    before = Gradient(0, theta / 2, 1.5)
    after = [Gradient(0, theta + more, -1.0), Gradient(1, other + more, 2.0)]
    chunked, whole = Reference(start(seed), ACID), Reference(start(seed), ACID)
    thetas = {0: theta, 1: other}
    chunked.replay([before, *together(0, 1, thetas), *after, *jumps(0, 1)])
    whole.replay([before, Exchange(0, 1, theta, other), *after])
    np.testing.assert_allclose(chunked.x, whole.x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(chunked.x_tilde, whole.x_tilde, rtol=0, atol=1e-12)


@given(st.integers(0, 10**6))
def test_snapshots_only_read(seed):
    programme = Programme(seed, exchanges=1)
    unused = [
        Snapshot(rank, theta, "unused", *CHUNKS[1])
        for rank, theta in enumerate(programme.thetas)
    ]
    plain, read = Reference(start(seed), ACID), Reference(start(seed), ACID)
    plain.replay(programme.events)
    read.replay([*programme.events, *unused, Gradient(0, programme.thetas[0], 0.0)])
    for one, two, theta in zip(plain.ranks, read.ranks, programme.thetas, strict=True):
        one.advance(theta)
        np.testing.assert_allclose(one.x, two.x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.x_tilde, two.x_tilde, rtol=0, atol=1e-12)


def test_flush_brings_all_to_one_time():
    reference = Reference([[0.0], [2.0]], ACID)
    reference.replay([Exchange(0, 1, 0.1, 0.2)])
    reference.flush(50.0)
    np.testing.assert_allclose(reference.x, reference.x_tilde)
    assert reference.mean == pytest.approx([1.0])


def test_consensus_distance():
    reference = Reference([[0.0, 1.0], [2.0, 1.0]], BASELINE)
    assert reference.consensus_distance == 1.0
    reference.replay([Exchange(1, 0, 0.0, 0.0)])
    assert reference.consensus_distance == 0.0
