"""The state that both loops share: what each event does to it, and its lock."""

import threading
import time

import numpy as np
import pytest

from acidmpi.arrays.flat import Chunk
from acidmpi.arrays.precision import narrow, widen
from acidmpi.arrays.site import HostSite
from acidmpi.kernels import load
from acidmpi.kernels.hyper import Add
from acidmpi.kernels.protocol import OneByOne
from acidmpi.testing.exchanges import ManualUnits
from acidmpi.worker import state as state_module
from acidmpi.worker.state import RankState, Update

DTYPES = ("float64", "float32", "float16", "uint16")


def random(size, dtype="float64", seed=0):
    return narrow(np.random.default_rng(seed).standard_normal(size), np.dtype(dtype))


def numbers(array):
    return widen(array).astype(np.float64)


def make(*arrays, kernels="cpu", accelerated=True, eta=1.0):
    """A state with x̃ away from x."""
    units = ManualUnits()
    state = RankState(arrays, load(kernels), units, accelerated)
    state.set_eta(eta)
    for tilde in state.x_tilde if accelerated else ():
        tilde += 1.0
    return state, units


def add(buffer, start, values):
    return Update(buffer, start, start + values.size, values, (), Add())


@pytest.mark.parametrize("dtype", DTYPES)
def test_companions_have_at_least_single_precision(dtype):
    state, _ = make(random(5, dtype))
    wide = {"float64": "float64"}.get(dtype, "float32")
    assert state.x_tilde[0].dtype == wide
    assert state.accelerated


@pytest.mark.parametrize("dtype", DTYPES)
def test_narrow_is_the_inverse_of_widen(dtype):
    x = random(1000, dtype)
    assert narrow(widen(x), x.dtype).tobytes() == x.tobytes()
    assert not np.shares_memory(widen(x), x)


def test_bfloat16_is_rounded_to_nearest_even_and_keeps_nan():
    ulp = 2.0**-7
    values = np.array([1.0, 1 + ulp / 2, 1 + 1.5 * ulp, 1 + 0.51 * ulp, np.inf, np.nan])
    expected = [1.0, 1.0, 1 + 2 * ulp, 1 + ulp, np.inf]
    result = widen(narrow(values, np.dtype("uint16")))
    assert result[:5].tolist() == expected
    assert np.isnan(result[5])


# Gaps: what no update covers is mixed like everything else.


@pytest.mark.parametrize("kernels", ["cpu", "reference"])
@pytest.mark.parametrize(
    "covered",
    [[], [(0, 0, 40)], [(0, 5, 9)], [(0, 0, 5), (0, 35, 40)], [(1, 3, 4), (0, 7, 8)]],
    ids=str,
)
def test_gaps_are_mixed(kernels, covered):
    a, b = random(40), random(6, seed=1)
    state, units = make(a, b, kernels=kernels)
    before = [
        (x.copy(), t.copy()) for x, t in zip(state.arrays, state.x_tilde, strict=True)
    ]
    units.advance(0.3)
    state.apply_gradient([add(k, i, np.full(j - i, 10.0)) for k, i, j in covered])
    weight = state_module.mixing_weight(0.3)
    for k, (x, tilde) in enumerate(before):
        update = np.zeros(x.size)
        for _, i, j in (c for c in covered if c[0] == k):
            update[i:j] = 10.0
        flow = weight * (tilde - x)
        np.testing.assert_allclose(state.arrays[k], x + flow + update, atol=1e-14)
        np.testing.assert_allclose(state.x_tilde[k], tilde - flow + update, atol=1e-14)


def test_gaps_longer_than_a_block_are_mixed(monkeypatch):
    monkeypatch.setattr(HostSite, "block_bytes", 1024)
    x = random(5000)
    state, units = make(x)
    assert len(state.blocks) > 30
    expected = x + state_module.mixing_weight(0.2) * (state.x_tilde[0] - x)
    units.advance(0.2)
    state.apply_gradient([add(0, 700, np.zeros(3))])
    np.testing.assert_allclose(x, expected, atol=1e-14)


def test_gaps_follow_updates_that_change():
    """Optimisers may leave out a parameter in one step and not in the next."""
    x = random(30)
    state, units = make(x)
    reference, companion = x.copy(), state.x_tilde[0].copy()
    for start in (0, 10, 10, 20, 0):
        units.advance(0.1)
        state.apply_gradient([add(0, start, np.ones(10))])
        flow = state_module.mixing_weight(0.1) * (companion - reference)
        reference, companion = reference + flow, companion - flow
        reference[start : start + 10] += 1
        companion[start : start + 10] += 1
    np.testing.assert_allclose(x, reference, atol=1e-13)


def test_without_companions_nothing_is_mixed():
    x = random(30)
    state, units = make(x, accelerated=False)
    before = x.copy()
    units.advance(5.0)
    state.flush()
    state.apply_gradient([add(0, 0, np.zeros(3))])
    assert x.tobytes() == before.tobytes()
    assert state.x_tilde == (None,)
    assert not state.accelerated


def test_time_that_stands_still_mixes_nothing():
    x = random(30)
    state, units = make(x, eta=0.0)
    before = x.copy()
    units.advance(5.0)
    state.flush()
    assert x.tobytes() == before.tobytes()
    state.set_eta(1.0)
    units.advance(0.1)
    state.flush()
    assert x.tobytes() != before.tobytes(), "from now on it mixes"


# The other events.


def test_a_foreign_event_sees_the_present_under_the_lock():
    x = random(10)
    state, units = make(x)
    expected = x + state_module.mixing_weight(0.5) * (state.x_tilde[0] - x)
    units.advance(0.5)

    def event():
        assert state.lock._is_owned()
        np.testing.assert_allclose(x, expected, atol=1e-14)
        x[:] = 7.0

    state.apply_foreign(event)
    assert not state.lock._is_owned()
    assert (x == 7.0).all()


def test_a_foreign_event_that_fails_lets_the_lock_go():
    state, _ = make(random(3))

    def event():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        state.apply_foreign(event)
    assert not state.lock._is_owned()


@pytest.mark.parametrize("dtype", DTYPES)
def test_restart_takes_what_was_written_from_outside(dtype):
    x = random(10, dtype)
    state, units = make(x)
    x[:] = random(10, dtype, seed=5)
    state.restart()
    assert state.x_tilde[0].tobytes() == widen(x).tobytes()
    units.advance(1.0)
    before = x.copy()
    state.flush()
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_are_what_a_snapshot_shows(dtype):
    a, b = random(50, dtype), random(20, dtype, seed=3)
    state, units = make(a, b)
    units.advance(0.4)
    chosen = [np.array([0, 7, 49]), np.array([], np.intp)]
    sampled = state.sample(chosen)
    out = np.empty_like(a)
    state.snapshot(Chunk(0, 0, 50), out)
    assert [s.dtype for s in sampled] == [np.float64, np.float64]
    assert sampled[1].size == 0
    tolerance = {"float64": 1e-14, "float32": 1e-6}.get(dtype, 2e-2)
    np.testing.assert_allclose(sampled[0], numbers(out)[[0, 7, 49]], atol=tolerance)


def test_half_sums_do_not_depend_on_the_time():
    x = random(10)
    state, units = make(x)
    out, later = np.empty(10), np.empty(10)
    state.half_sum(Chunk(0, 0, 10), out)
    units.advance(3.0)
    state.half_sum(Chunk(0, 0, 10), later)
    assert out.tobytes() == later.tobytes()
    np.testing.assert_allclose(out, (x + state.x_tilde[0]) / 2, atol=1e-15)


def test_a_jump_far_ahead_of_the_state_is_not_carried_back(monkeypatch):
    """Beyond the bound the state is brought near it first; the result is the same."""

    def run(bound):
        monkeypatch.setattr(state_module, "LARGEST_CARRY", bound)
        x = random(10)
        state, units = make(x)
        units.advance(2.0)
        out = np.empty(10)
        theta = state.snapshot(Chunk(0, 0, 10), out)
        units.advance(1.0)
        state.apply_exchange(Chunk(0, 0, 10), out, np.zeros(10), theta, 0.5, 1.5)
        stood = state._stands_at
        state.flush()
        return stood, x, state.x_tilde[0]

    stood, x, tilde = run(0.5)
    assert stood == 3.0, "mixed to now"
    stood, carried, carried_tilde = run(10.0)
    assert stood == 0.0
    np.testing.assert_allclose(x, carried, atol=1e-12)
    np.testing.assert_allclose(tilde, carried_tilde, atol=1e-12)


def test_a_snapshot_tells_the_moment_of_its_reading():
    state, units = make(random(4), eta=0.5)
    units.advance(3.0)
    assert state.snapshot(Chunk(0, 0, 4), np.empty(4)) == 1.5


# The lock.


class Torn(OneByOne):
    """Kernels that another thread can interrupt between reading and writing."""

    def __init__(self, seconds=2e-5):
        self._kernels = load("reference")
        self._seconds = seconds

    def snapshot(self, x, x_tilde, out, weight):
        middle = x.size // 2
        tilde = (
            (None, None) if x_tilde is None else (x_tilde[:middle], x_tilde[middle:])
        )
        self._kernels.snapshot(x[:middle], tilde[0], out[:middle], weight)
        time.sleep(self._seconds)
        self._kernels.snapshot(x[middle:], tilde[1], out[middle:], weight)

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        self._slowly(x, x_tilde, lambda a, b: (a, b, gradient, state, weight, hyper))

    def apply_exchange(self, x, x_tilde, sent, received, p, q):
        self._slowly(x, x_tilde, lambda a, b: (a, b, sent, received, p, q))

    def _slowly(self, x, x_tilde, arguments):
        read = x.copy(), None if x_tilde is None else x_tilde.copy()
        time.sleep(self._seconds)
        called = arguments(*read)
        run = self._kernels.apply_gradient if len(called[3]) == 0 else None
        (run or self._kernels.apply_exchange)(*called)
        x[:] = read[0]
        if x_tilde is not None:
            x_tilde[:] = read[1]


def check_no_event_is_lost(kernels, lock=None, size=16, turns=150):
    """One thread applies gradients, the other exchanges with a peer that is not there.

    Numbers are whole and few, so that sums are exact: nothing is mixed.
    """
    x = np.zeros(size)
    state = RankState([x], kernels, ManualUnits(), True)
    if lock is not None:
        state.lock = lock
    chunk, torn = Chunk(0, 0, size), []

    def gradients():
        for _ in range(turns):
            state.apply_gradient([add(0, 0, np.ones(size))])

    def exchanges():
        out, received = np.empty(size), np.zeros(size)
        for _ in range(turns):
            theta = state.snapshot(chunk, out)
            torn.append(np.ptp(out))
            state.apply_exchange(chunk, np.full(size, 2.0), received, theta, 0.5, 1.5)

    threads = [threading.Thread(target=work) for work in (gradients, exchanges)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (x == 0.0).all(), "a gradient or a jump of x is lost"
    assert (state.x_tilde[0] == turns - 3.0 * turns).all(), "one of x̃ is lost"
    assert max(torn) == 0.0, "a reader saw half an event"


def test_no_event_is_lost():
    check_no_event_is_lost(Torn())


def test_no_event_is_lost_in_compiled_code():
    check_no_event_is_lost(load("cpu"), size=50_000, turns=400)


def test_a_missing_lock_is_found(no_lock):
    with pytest.raises(AssertionError):
        check_no_event_is_lost(Torn(), no_lock)


def check_events_are_whole(every_moment, lock=None):
    """A jump that comes in at any instruction of a gradient event."""

    def make_events():
        x = np.zeros(4)
        units = ManualUnits()
        state = RankState([x], load("reference"), units, True)
        state.set_eta(1.0)
        if lock is not None:
            state.lock = lock
        state.x_tilde[0][:] = 2.0
        units.advance(0.25)
        chunk, out = Chunk(0, 0, 4), np.empty(4)

        def gradient():
            state.apply_gradient([add(0, 1, np.ones(2))])

        def exchange():
            theta = state.snapshot(chunk, out)
            state.apply_exchange(chunk, np.ones(4), np.zeros(4), theta, 0.5, 1.5)

        def check():
            weight = state_module.mixing_weight(0.25)
            update = np.array([0.0, 1.0, 1.0, 0.0])
            mixed = 2 * weight
            before, after = np.full(4, mixed), mixed + update
            assert np.allclose(out, before) or np.allclose(out, after)
            np.testing.assert_allclose(x, mixed + update - 0.5, atol=1e-14)
            tilde = 2.0 - mixed + update - 1.5
            np.testing.assert_allclose(state.x_tilde[0], tilde, atol=1e-14)

        return gradient, exchange, check

    every_moment(make_events, 7)


def test_events_are_whole_at_every_instruction(every_moment):
    check_events_are_whole(every_moment)


def test_a_missing_lock_is_found_at_some_instruction(every_moment, no_lock):
    with pytest.raises(AssertionError):
        check_events_are_whole(every_moment, no_lock)
