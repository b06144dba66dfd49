"""Invariants of exchanges: states and exchangers as in a run, in one process.

Chance decides when each side goes on and where gradients and time fall inside chunked
exchanges. Each invariant is a check that a planted fault must fail.
"""

import random
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidmpi.arrays.precision import narrow, widen
from acidmpi.dynamics.events import Gradient, Snapshot
from acidmpi.kernels import load
from acidmpi.kernels.hyper import Add
from acidmpi.testing.exchanges import (
    ManualUnits,
    Plot,
    RecordingExchanger,
    RecordingState,
    Rehearsal,
    flat,
    landings,
    replay,
)
from acidmpi.worker import state as state_module
from acidmpi.worker.state import RankState, Update

BACKENDS = {name: load(name) for name in ("cpu", "reference")}
ROUNDING = {"float64": 1e-14, "float32": 5e-6, "float16": 3e-2, "uint16": 0.2}
"""Rounding of a few hundred events, in units of the largest number met."""

PLAIN = Plot(accelerated=False, alpha_tilde=0.5)
"""The baseline."""

STILL = PLAIN._replace(accelerated=True, eta=0.0)
"""x̃ is held and not used."""


class Drawn:
    """Chance from bytes that hypothesis draws and can shrink; then nothing happens."""

    def __init__(self, drawn):
        self._drawn = drawn
        self._used = self._turn = 0

    def __repr__(self):
        return f"Drawn({self._drawn!r})"

    def random(self):
        self._used += 1
        return self._drawn[self._used] / 256 if self._used < len(self._drawn) else 0.99

    def randrange(self, start, stop):
        return start + int(self.random() * (stop - start))

    def choice(self, options):
        self._turn += 1  # in the end all take turns
        if self._used >= len(self._drawn):
            return options[self._turn % len(options)]
        return options[self.randrange(0, len(options))]


chances = st.binary(min_size=100, max_size=1000).map(Drawn)
backends = st.sampled_from(sorted(BACKENDS))
a_few = settings(max_examples=12)


def rehearse(chance, plot=Plot(), backend="cpu", exchanges=3, **classes):  # noqa: B008
    rehearsal = Rehearsal(chance, BACKENDS[backend], plot, **classes)
    rehearsal.run(exchanges)
    return rehearsal


def check_antisymmetry(rehearsal):
    """Both ends of each chunk used the same two messages: m_i is −m_j to the last bit."""
    ends = {}
    for rank, log in enumerate(rehearsal.logs()):
        for landing in landings(log):
            place = landing.label, landing.start, rank
            assert place not in ends, f"rank {rank} applied a chunk twice"
            ends[place] = landing
    for (label, start, _), here in ends.items():
        there = ends[label, start, here.peer]
        assert here.sent == there.received, (label, start)
        assert here.received == there.sent, (label, start)
        assert here.coefficients == there.coefficients, (label, start)


def check_mean(rehearsal):
    """½Σ(x + x̃) over ranks is what it was, plus the gradients."""
    updates = [e.update for log in rehearsal.logs() for e in log if type(e) is Gradient]
    expected = np.sum([*rehearsal.start, *updates], axis=0)
    halves = [rehearsal.seen(rank)[1] for rank in range(rehearsal.plot.ranks)]
    largest = max(np.abs(tilde(rehearsal, r)).max() for r in range(len(halves)))
    bound = ROUNDING[rehearsal.plot.dtype] * (10.0 + largest)
    np.testing.assert_allclose(np.sum(halves, axis=0), expected, rtol=0, atol=bound)
    drift = sum(exchanger.drift for exchanger in rehearsal.exchangers)
    assert abs(drift) <= bound, "the exchangers' own account of the mean"


def check_event_list(rehearsal):
    """x and x̃ of every rank are what the float64 event list gives."""
    ranks = replay(rehearsal.start, rehearsal.logs())
    for rank, expected in enumerate(ranks):
        expected.advance(rehearsal.theta(rank))
        x, half = rehearsal.seen(rank)
        bound = (
            30 * ROUNDING[rehearsal.plot.dtype] * (1 + np.abs(expected.x_tilde).max())
        )
        np.testing.assert_allclose(x, expected.x, rtol=0, atol=bound)
        np.testing.assert_allclose(
            half, (expected.x + expected.x_tilde) / 2, rtol=0, atol=bound
        )


def tilde(rehearsal, rank):
    x, half = rehearsal.seen(rank)
    return 2 * half - x


def check_plain_averaging(rehearsal):
    """x̃ is not there, and x is bit for bit what averaging by hand gives."""
    for state in rehearsal.states:
        assert not state.accelerated
        assert all(t is None for t in state.x_tilde)
    check_averaged_by_hand(rehearsal)


def check_averaged_by_hand(rehearsal):
    x = [start.astype(rehearsal.plot.dtype) for start in rehearsal.start]
    for rank, log in enumerate(rehearsal.logs()):
        for event in log:
            average_by_hand(x[rank], event)
    for rank, expected in enumerate(x):
        for state_x in rehearsal.states[rank].arrays:
            part, expected = expected[: state_x.size], expected[state_x.size :]
            assert state_x.tobytes() == part.tobytes()


def average_by_hand(x, event):
    if isinstance(event, Gradient):
        x += event.update.astype(x.dtype)
    elif not isinstance(event, Snapshot):
        sent = np.frombuffer(event.sent, x.dtype)
        received = np.frombuffer(event.received, x.dtype)
        x[event.start : event.start + sent.size] -= x.dtype.type(0.5) * (
            sent - received
        )


# The properties.


@a_few
@given(chances, backends, st.sampled_from(["float64", "float32", "float16", "uint16"]))
def test_two_ends_use_the_same_numbers(chance, backend, dtype):
    rehearsal = rehearse(chance, Plot(dtype=dtype), backend)
    check_antisymmetry(rehearsal)
    assert any(True for log in rehearsal.logs() for _ in landings(log))


@a_few
@given(chances, backends, st.sampled_from(["float64", "float32"]))
def test_mean_changes_by_gradients_only(chance, backend, dtype):
    check_mean(rehearse(chance, Plot(dtype=dtype, ranks=3), backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_mean_of_sixteen_bit_numbers_stays_to_their_rounding(backend, dtype):
    for seed in range(3):
        check_mean(rehearse(random.Random(seed), Plot(dtype=dtype), backend, 2))


@a_few
@given(chances, backends)
def test_exchanges_follow_the_event_list(chance, backend):
    check_event_list(rehearse(chance, Plot(ranks=3), backend))


@a_few
@given(chances)
def test_event_list_is_followed_when_mixing_is_rationed(chance):
    rehearsal = rehearse(chance, Plot(ration=0.02), exchanges=4)
    check_event_list(rehearsal)
    for rank, exchanger in enumerate(rehearsal.exchangers):
        made = sum(exchanger.__dict__.get("past", {}).values())
        assert rehearsal.theta(rank) <= 0.02 * (made + 6) * (1 + 1e-12)


@a_few
@given(chances)
def test_event_list_is_followed_in_single_precision(chance):
    check_event_list(rehearse(chance, Plot("float32")))


@pytest.mark.parametrize("seed", range(5))
def test_event_list_is_followed_far_behind(seed, monkeypatch):
    """So long without a gradient that a jump cannot be carried back."""
    mixed = []
    original = RankState._mix_all
    monkeypatch.setattr(
        RankState, "_mix_all", lambda self: (mixed.append(1), original(self))
    )
    plot = Plot(gradients=False, steps=(0.3, 0.9))
    check_event_list(rehearse(random.Random(seed), plot))
    assert mixed


# The reference computes in float64 and rounds once: in single precision it is not what
# averaging by hand gives.
by_hand = st.sampled_from(
    [("cpu", "float64"), ("cpu", "float32"), ("reference", "float64")]
)


@a_few
@given(chances, by_hand)
def test_baseline_is_plain_averaging_to_the_last_bit(chance, kind):
    backend, dtype = kind
    check_plain_averaging(rehearse(chance, PLAIN._replace(dtype=dtype), backend))


@a_few
@given(chances, by_hand)
def test_no_mixing_is_plain_averaging_to_the_last_bit(chance, kind):
    backend, dtype = kind
    check_averaged_by_hand(rehearse(chance, STILL._replace(dtype=dtype), backend))


def check_companion_is_idle(plot, backend, **classes):
    """Before the constants are known x̃ is held, and neither acts nor differs."""
    with_it = rehearse(random.Random(1), plot, backend, **classes)
    without = rehearse(random.Random(1), plot._replace(accelerated=False), backend)
    for one, other in zip(with_it.states, without.states, strict=True):
        for x, tilde, plain in zip(one.arrays, one.x_tilde, other.arrays, strict=True):
            assert x.tobytes() == plain.tobytes()
            if plot.dtype in ("float64", "float32"):
                assert x.tobytes() == tilde.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_eta_zero_is_the_baseline_to_the_last_bit(dtype, backend):
    check_companion_is_idle(STILL._replace(dtype=dtype), backend)


def test_a_peer_that_reads_slowly_disturbs_nobody():
    """Whoever goes on whenever it can, with nothing in between."""
    rehearsal = Rehearsal(random.Random(0), BACKENDS["cpu"], Plot(steps=(0.1,)))
    rehearsal.hesitates = lambda: False
    rehearsal.run(20)
    check_antisymmetry(rehearsal)
    check_mean(rehearsal)
    check_event_list(rehearsal)


# The state alone.


@contextmanager
def one_rank(dtype="float64", size=100, backend="cpu", kind=RankState):
    generator = np.random.default_rng(size)
    x = generator.standard_normal(size)
    x = narrow(x, np.dtype(dtype))
    units = ManualUnits()
    state = kind([x], BACKENDS[backend], units, True)
    state.set_eta(1.0)
    for tilde in state.x_tilde:
        tilde += generator.standard_normal(size).astype(tilde.dtype)
    yield state, units


def numbers(array):
    return widen(array).astype(np.float64)


def check_mixing_keeps_the_sum(kind, dtype, backend):
    with one_rank(dtype, backend=backend, kind=kind) as (state, units):
        before = numbers(state.arrays[0]) + state.x_tilde[0]
        gap = numbers(state.arrays[0]) - state.x_tilde[0]
        units.advance(0.4)
        state.flush()
        after = numbers(state.arrays[0]) + state.x_tilde[0]
        left = numbers(state.arrays[0]) - state.x_tilde[0]
        bound = 10 * ROUNDING[dtype]
        np.testing.assert_allclose(after, before, rtol=0, atol=bound)
        np.testing.assert_allclose(left, gap * np.exp(-0.8), rtol=0, atol=bound)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_mixing_keeps_the_sum(dtype, backend):
    check_mixing_keeps_the_sum(RankState, dtype, backend)


def check_fixed_point(kind, dtype, backend):
    with one_rank(dtype, backend=backend, kind=kind) as (state, units):
        state.restart()
        before = state.arrays[0].copy(), state.x_tilde[0].copy()
        for _ in range(10):
            units.advance(0.3)
            state.flush()
        assert state.arrays[0].tobytes() == before[0].tobytes()
        assert state.x_tilde[0].tobytes() == before[1].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_equal_vectors_are_a_fixed_point_of_mixing(dtype, backend):
    check_fixed_point(RankState, dtype, backend)


def check_snapshots_only_read(kind, backend):
    """A run with snapshots that nobody uses is the run without them, bit for bit."""
    ends = []
    for reads in (False, True):
        with one_rank(backend=backend, kind=kind) as (state, units):
            for _ in range(5):
                units.advance(0.1)
                for chunk in state.blocks if reads else ():
                    state.snapshot(chunk, np.empty(100))
                    state.half_sum(chunk, np.empty(100))
                    state.sample([np.arange(7)])
                units.advance(0.1)
                update = Update(0, 10, 60, np.ones(50), (), Add())
                state.apply_gradient([update])
            ends.append((state.arrays[0].tobytes(), state.x_tilde[0].tobytes()))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_snapshots_only_read(backend):
    check_snapshots_only_read(RankState, backend)


# The faults that the properties must find.


class SendsUnmixed(RecordingState):
    """x is sent as it was at the last event."""

    def snapshot(self, chunk, out):
        theta = super().snapshot(chunk, out)
        out[:] = self.arrays[chunk.buffer][chunk.start : chunk.stop]
        return theta


class AuthorsOrder(SendsUnmixed):
    """x is sent unmixed, then one's own is mixed and the other's is subtracted."""

    def apply_exchange(self, chunk, sent, received, theta, alpha, alpha_tilde):
        self.flush()
        sent[:] = self.arrays[chunk.buffer][chunk.start : chunk.stop]
        now = self._stands_at
        super().apply_exchange(chunk, sent, received, now, alpha, alpha_tilde)


class WritesBack(RecordingState):
    """The mixed x of a snapshot is kept; x̃ and the time are not."""

    def snapshot(self, chunk, out):
        theta = super().snapshot(chunk, out)
        self.arrays[chunk.buffer][chunk.start : chunk.stop] = out
        return theta


class NotCarried(RecordingState):
    """A jump counts from the moment of its application."""

    def apply_exchange(self, chunk, sent, received, theta, alpha, alpha_tilde):
        theta = self._stands_at
        super().apply_exchange(chunk, sent, received, theta, alpha, alpha_tilde)


class CarriedTheWrongWay(RecordingState):
    """As if the snapshot were as far on the other side of the state."""

    def apply_exchange(self, chunk, sent, received, theta, alpha, alpha_tilde):
        theta = 2 * self._stands_at - theta
        super().apply_exchange(chunk, sent, received, theta, alpha, alpha_tilde)


class AppliesTwice(RecordingState):
    """The first chunk of an exchange counts double."""

    def apply_exchange(self, chunk, *rest):
        super().apply_exchange(chunk, *rest)
        if chunk.start == 0:
            RankState.apply_exchange(self, chunk, *rest)


class LandsTwice(RecordingState):
    """A chunk stays among those that are on the wire."""

    def apply_exchange(self, chunk, *rest):
        super().apply_exchange(chunk, *rest)
        if chunk.start == 8:
            super().apply_exchange(chunk, *rest)


class TakesXOfNow(RecordingState):
    """The difference is taken from x as it is when the message comes."""

    def apply_exchange(self, chunk, sent, *rest):
        own = self.arrays[chunk.buffer][chunk.start : chunk.stop].copy()
        super().apply_exchange(chunk, own, *rest)


class ForgetsGaps(RecordingState):
    """What no update covers is not mixed, though its time moves on."""

    def _mix_gaps(self, updates, weight):
        pass


class MixesAllAgain(RecordingState):
    """What an update covers is mixed once more with the rest."""

    def _uncovered(self, updates):
        return super()._uncovered(())


class RemembersGaps(RecordingState):
    """The gaps of the first gradient are used for ever."""

    def _uncovered(self, updates):
        return self._gaps[1] or super()._uncovered(updates)


class MixesAndForgets(RecordingState):
    """A pass of mixing that leaves the time of the state where it was."""

    def _mix_all(self):
        before = self._stands_at
        super()._mix_all()
        self._stands_at = before


class OwnAlphaTilde(RecordingExchanger):
    """The two ends do not settle on one α̃."""

    def exchange(self, terms, *rest):
        own = terms.alpha_tilde + 0.1 * self._state.rank
        yield from super().exchange(terms._replace(alpha_tilde=own), *rest)


class ReusesBuffers(RecordingExchanger):
    """Too few pieces of staging memory: written again before they were applied."""

    def __init__(self, *rest):
        super().__init__(*rest)
        self._free = [self._places[0]] * len(self._places)


class KeepsACompanion(RecordingState):
    """x̃ is held where nobody asked for it."""

    def __init__(self, arrays, kernels, units, accelerated, ration):
        super().__init__(arrays, kernels, units, True, ration)


class AlwaysMixes(RecordingState):
    """The companion is used though its time stands still."""

    def apply_gradient(self, updates):
        super().apply_gradient(updates)
        for x, tilde in zip(self.arrays, self.x_tilde, strict=True):
            x[:] = 0.9 * x + 0.1 * tilde


class LeavesXTilde(RecordingState):
    """The jump does not reach x̃."""

    def apply_exchange(self, chunk, *rest):
        tilde = self.x_tilde[chunk.buffer][chunk.start : chunk.stop]
        kept = tilde.copy()
        super().apply_exchange(chunk, *rest)
        tilde[:] = kept


IDLE = Plot(gradients=False, steps=(0.3, 0.9))
EQUAL = Plot(steps=(0.0,), eta=0.0)
FAULTS = [
    (AuthorsOrder, check_mean, Plot()),
    (AuthorsOrder, check_antisymmetry, Plot()),
    (SendsUnmixed, check_event_list, Plot()),
    (WritesBack, check_mean, Plot()),
    (WritesBack, check_event_list, Plot()),
    (NotCarried, check_event_list, Plot()),
    (CarriedTheWrongWay, check_event_list, Plot()),
    (AppliesTwice, check_event_list, Plot()),
    (LandsTwice, check_antisymmetry, Plot()),
    (TakesXOfNow, check_antisymmetry, Plot()),
    (TakesXOfNow, check_mean, Plot()),
    (ForgetsGaps, check_event_list, Plot()),
    (MixesAllAgain, check_event_list, Plot()),
    (RemembersGaps, check_event_list, Plot()),
    (MixesAndForgets, check_event_list, IDLE),
    (OwnAlphaTilde, check_antisymmetry, Plot()),
    (OwnAlphaTilde, check_mean, Plot()),
    (ReusesBuffers, check_antisymmetry, Plot()),
    (ReusesBuffers, check_mean, Plot()),
    (KeepsACompanion, check_plain_averaging, PLAIN),
    (LeavesXTilde, check_event_list, EQUAL),
]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize(("fault", "check", "plot"), FAULTS)
def test_the_property_finds_the_fault(fault, check, plot):
    role = "state" if issubclass(fault, RankState) else "exchanger"

    def found(seed):
        rehearsal = rehearse(random.Random(seed), plot, **{role: fault})
        try:
            check(rehearsal)
        except AssertionError:
            return True
        return False

    assert all(found(seed) for seed in range(3))


@pytest.mark.parametrize(("check", "plot"), dict.fromkeys(row[1:] for row in FAULTS))
def test_the_property_holds_without_the_fault(check, plot):
    for seed in range(3):
        check(rehearse(random.Random(seed), plot))


def test_the_baseline_finds_the_fault():
    with pytest.raises(AssertionError):
        check_companion_is_idle(STILL, "cpu", state=AlwaysMixes)


class MixesXOnly(RankState):
    """x̃ stays where it is."""

    def _mix_all(self):
        kept = self.x_tilde[0].copy()
        super()._mix_all()
        self.x_tilde[0][:] = kept


class MixesWithTheNewX(RankState):
    """x̃ is mixed with the x that has been mixed already."""

    def _mix_all(self):
        theta = self._now()
        weight = state_module.mixing_weight(theta - self._stands_at)
        x, x_tilde = self.arrays[0], self.x_tilde[0]
        x += weight * (x_tilde - x)
        x_tilde += weight * (x - x_tilde)
        self._stands_at = theta


class ScalesInstead(RankState):
    """(1 − w)x + w x̃: the same but for rounding."""

    def _mix_all(self):
        theta = self._now()
        weight = state_module.mixing_weight(theta - self._stands_at)
        x, x_tilde = self.arrays[0], self.x_tilde[0]
        x[:], x_tilde[:] = (
            (1 - weight) * x + weight * x_tilde,
            (1 - weight) * x_tilde + weight * x,
        )
        self._stands_at = theta


class MovesTheTime(RankState):
    """A snapshot mixes the state, as the authors' code does."""

    def snapshot(self, chunk, out):
        self.flush()
        return super().snapshot(chunk, out)


@pytest.mark.parametrize("fault", [MixesXOnly, MixesWithTheNewX])
def test_the_sum_finds_the_fault(fault):
    with pytest.raises(AssertionError):
        check_mixing_keeps_the_sum(fault, "float64", "cpu")


def test_the_fixed_point_finds_the_fault():
    with pytest.raises(AssertionError):
        check_fixed_point(ScalesInstead, "float64", "cpu")


def test_reading_finds_the_fault():
    with pytest.raises(AssertionError):
        check_snapshots_only_read(MovesTheTime, "cpu")


def test_one_number_of_x_is_enough_to_be_found():
    """The comparisons are not looser than one disturbed element."""
    rehearsal = rehearse(random.Random(0))
    check_event_list(rehearsal)
    rehearsal.states[0].arrays[0][3] += 1e-9
    with pytest.raises(AssertionError):
        check_event_list(rehearsal)
    with pytest.raises(AssertionError):
        check_mean(rehearsal)
    assert flat(rehearsal.states[0].arrays).size == 87
