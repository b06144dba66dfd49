"""What every kernel backend must do: one list of checks, run on each of them.

`python -m pytest --pyargs acidmpi.testing.kernels` runs it on this machine.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acidmpi.arrays import bfloat16
from acidmpi.errors import ConfigError
from acidmpi.kernels.hyper import SGD, Adam, Add, Hyper
from acidmpi.kernels.protocol import wide_dtype
from acidmpi.testing.kernel_cases import (
    BACKENDS,
    DTYPES,
    REFERENCE,
    RULES,
    Subject,
    cases,
    close,
    exchange,
    mix,
    numbers,
    run,
    same,
    snapshot,
    step,
    vectors,
)

AT_ONCE_SECONDS = 1e-4
"""What a call may take that only queues work."""

Check = Callable[[Subject, str], None]
"""(backend, dtype of x) → AssertionError, or nothing."""

TORCH: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.03, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.03, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.03, "maximize": True}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.03}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
)


def snapshot_reads_only(subject: Subject, dtype: str) -> None:
    """It writes the mixed x, and x itself where there is nothing to mix."""
    for arrays, offset in cases(dtype):
        for weight in (0.0, 0.3, 0.5):
            actual = run(subject, snapshot(weight), arrays, offset)
            close(actual, run(REFERENCE, snapshot(weight), arrays), dtype, "out")
            same(actual.x, arrays["x"], "x")
            if actual.x_tilde is not None:
                same(actual.x_tilde, arrays["x_tilde"], "x_tilde")
            if actual.x_tilde is None or weight == 0:
                same(actual.out, arrays["x"], "the snapshot")


def gradients_follow_the_reference(subject: Subject, dtype: str) -> None:
    """Every rule, with and without companions, mixed and not."""
    wide = str(wide_dtype(dtype))
    for arrays, offset in cases(dtype):
        for rule in RULES:
            for weight in (0.0, 0.3):
                actual = run(subject, step(rule, weight), arrays, offset)
                expected = run(REFERENCE, step(rule, weight), arrays)
                same(actual.gradient, arrays["gradient"], "the gradient")
                close(actual, expected, dtype, "x")
                close(actual, expected, wide, "first", "second")
                if actual.x_tilde is not None:
                    close(actual, expected, wide, "x_tilde")


def many_steps_follow_torch(subject: Subject, dtype: str) -> None:
    """Torch's own optimisers, step by step, in the types whose state torch keeps."""
    if dtype in ("float64", "float32"):
        for name, options in TORCH:
            for x_tilde in (False, True):
                _follow_torch(subject, vectors(dtype, 33, 0, x_tilde), name, options)


def _follow_torch(
    subject: Subject, arrays: dict[str, Any], name: str, options: dict[str, Any]
) -> None:
    import torch

    dtype = str(arrays["x"].dtype)
    parameter = torch.from_numpy(arrays["x"].copy()).requires_grad_()
    optimizer = getattr(torch.optim, name)([parameter], **options)
    # The first step must not look at what the momentum's memory holds.
    arrays["first"][:] = np.nan if name == "SGD" else 0
    arrays["second"][:] = 0
    for number in range(1, 21):
        arrays["gradient"] = vectors(dtype, 33, number)["gradient"]
        parameter.grad = torch.from_numpy(arrays["gradient"].copy())
        optimizer.step()
        arrays = vars(run(subject, step(_hyper(name, options, number)), arrays))
        expected = SimpleNamespace(x=parameter.detach().numpy())
        close(SimpleNamespace(**arrays), expected, dtype, "x", steps=number)


def _hyper(name: str, options: dict[str, Any], number: int) -> Hyper:
    if name == "SGD":
        return SGD(**options, first=number == 1)
    betas = options.get("betas", (0.9, 0.999))
    return Adam(
        options["lr"],
        beta_1=betas[0],
        beta_2=betas[1],
        eps=options.get("eps", 1e-8),
        weight_decay=options.get("weight_decay", 0.0),
        decoupled=name == "AdamW",
        step=number,
        maximize=options.get("maximize", False),
    )


def both_take_one_update(subject: Subject, dtype: str) -> None:
    """The companion moves by what x moves by, decoupled weight decay included."""
    for rule in RULES:
        arrays = vectors(dtype, 100)
        old, old_tilde = numbers(arrays["x"]), arrays["x_tilde"]
        actual = run(subject, step(rule), arrays)
        moved = SimpleNamespace(x=numbers(actual.x) - old)
        close(SimpleNamespace(x=actual.x_tilde - old_tilde), moved, dtype, "x", steps=4)


def zeroing_changes_nothing_else(subject: Subject, dtype: str) -> None:
    """`zero_gradient` leaves zeros, and everything else as it is without."""
    for arrays, offset in cases(dtype):
        for rule in RULES:
            kept = run(subject, step(rule, 0.3), arrays, offset)
            zeroing = rule._replace(zero_gradient=True)
            actual = run(subject, step(zeroing, 0.3), arrays, offset)
            same(actual.gradient, np.zeros_like(actual.gradient), "the gradient")
            for name in ("x", "x_tilde", "first", "second"):
                if arrays[name] is not None:
                    same(getattr(actual, name), getattr(kept, name), name)


def weight_zero_is_the_baseline(subject: Subject, dtype: str) -> None:
    """Bit for bit, whatever the companion holds; zeros keep their signs."""
    for rule in RULES:
        arrays = vectors(dtype, 1000)
        arrays["x"][:20] = 0x8000 if dtype == "uint16" else -0.0
        arrays["gradient"][:10] = arrays["x"][:10]
        arrays["x_tilde"][:800:3] = np.inf
        arrays["x_tilde"][1:800:3] = np.nan
        actual = run(subject, step(rule), arrays)
        baseline = run(subject, step(rule), arrays | {"x_tilde": None})
        for name in ("x", "first", "second"):
            same(getattr(actual, name), getattr(baseline, name), name)
        mixed = run(subject, snapshot(0.0), arrays)
        same(mixed.out, arrays["x"], "the snapshot")


def exchanges_follow_the_reference(subject: Subject, dtype: str) -> None:
    """With any two factors; messages are only read."""
    for arrays, offset in cases(dtype):
        actual = run(subject, exchange(0.5, 1.7), arrays, offset)
        expected = run(REFERENCE, exchange(0.5, 1.7), arrays)
        close(actual, expected, dtype, "x", steps=2)
        if actual.x_tilde is not None:
            close(actual, expected, str(wide_dtype(dtype)), "x_tilde", steps=2)
        for name in ("sent", "received"):
            same(getattr(actual, name), arrays[name], name)


def jumps_are_opposite(subject: Subject, dtype: str) -> None:
    """The two ends of an exchange move by exactly opposite amounts."""
    one = vectors(dtype, 1000)
    for name in ("x", "x_tilde"):
        one[name][:] = 0
    other = one | {"sent": one["received"], "received": one["sent"]}
    here = run(subject, exchange(0.5, 0.5), one)
    there = run(subject, exchange(0.5, 0.5), other)
    assert np.any(numbers(here.x)), "nothing moved"
    for name in ("x", "x_tilde"):
        jumps = numbers(getattr(here, name)), numbers(getattr(there, name))
        np.testing.assert_array_equal(jumps[0], -jumps[1], err_msg=name)


def mixing_in_place_is_exact(subject: Subject, dtype: str) -> None:
    """It gives what a snapshot shows, keeps the sum, and leaves equal vectors alone."""
    for arrays, offset in cases(dtype):
        if arrays["x_tilde"] is None:
            continue
        actual = run(subject, mix(0.3), arrays, offset)
        close(actual, run(REFERENCE, mix(0.3), arrays), dtype, "x", "x_tilde")
        shown = SimpleNamespace(x=run(subject, snapshot(0.3), arrays, offset).out)
        close(actual, shown, dtype, "x")
        before = numbers(arrays["x"]) + arrays["x_tilde"]
        after = SimpleNamespace(sum=numbers(actual.x) + actual.x_tilde)
        close(after, SimpleNamespace(sum=before), dtype, "sum")
        arrays["x_tilde"][:] = numbers(arrays["x"])
        same(run(subject, mix(0.3), arrays, offset).x, arrays["x"], "a fixed point")


def sums_are_rounded_to_nearest(subject: Subject, dtype: str) -> None:
    """One addition is the exact sum rounded once, ties to even."""
    arrays = vectors(dtype, 1000)
    if dtype == "uint16":
        arrays["gradient"] -= 0x0080  # half as large: ties are frequent
    expected = run(REFERENCE, step(Add()), arrays)
    same(run(subject, step(Add()), arrays).x, expected.x, "x")


def nonfinite_numbers_stay(subject: Subject, dtype: str) -> None:
    """NaN stays NaN, infinity stays infinity, and what overflows becomes one."""
    arrays = vectors(dtype, 40)
    bits = arrays["x"].view(f"uint{8 * arrays['x'].itemsize}")
    infinity = np.inf if dtype != "uint16" else bfloat16.encode(np.array([np.inf]))[0]
    arrays["x"][:8] = infinity
    bits[8:16] = bits[0] + 1  # the NaN that a careless rounding turns into infinity
    bits[16:24] = np.iinfo(bits.dtype).max
    bits[24:] = bits[0] - 1  # the largest number
    arrays["gradient"][:24] = 0
    arrays["gradient"][24:] = arrays["x"][24:]
    arrays["x_tilde"][8:] = 1
    for weight in (0.0, 0.3):
        x = numbers(run(subject, step(Add(), weight), arrays).x)
        out = numbers(run(subject, snapshot(weight), arrays).out)
        assert np.isnan(x[8:24]).all(), "a NaN is lost"
        assert np.isnan(out[8:24]).all(), "a NaN is lost in the snapshot"
        assert weight or np.isposinf(x[:8]).all(), "an infinity is lost"
        assert weight or np.isposinf(out[:8]).all(), "the snapshot loses an infinity"
        assert weight or np.isposinf(x[24:]).all(), "an overflow is hidden"


def other_threads_go_on(subject: Subject, dtype: str) -> None:
    """Every kernel lets go of the interpreter's lock while it runs.

    A GPU's is only queued: a call that is over at once keeps nobody waiting, and often
    lets go for too short a time for another thread to wake up.
    """
    arrays = {k: subject.put(v) for k, v in vectors(dtype, 1 << 20).items()}
    v = SimpleNamespace(**arrays)
    for operation in (snapshot(0.3), exchange(0.5, 1.7), mix(0.3), step(RULES[4], 0.3)):
        with _turns_of_another_thread() as turns:
            for _ in range(200):
                before, began = turns[0], time.perf_counter()
                operation(subject.kernels, v)
                if turns[0] > before or time.perf_counter() - began < AT_ONCE_SECONDS:
                    break
            else:
                raise AssertionError("no other thread ran during 200 calls")


@contextmanager
def _turns_of_another_thread() -> Iterator[list[int]]:
    turns = [0]
    ended = threading.Event()

    def count() -> None:
        while not ended.is_set():
            turns[0] += 1
            time.sleep(0)

    # Nobody is made to let go of the lock: a turn is possible only when it is released.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield turns
    finally:
        ended.set()
        sys.setswitchinterval(interval)
        thread.join()


CONTRACT: tuple[Check, ...] = (
    snapshot_reads_only,
    gradients_follow_the_reference,
    many_steps_follow_torch,
    both_take_one_update,
    zeroing_changes_nothing_else,
    weight_zero_is_the_baseline,
    exchanges_follow_the_reference,
    jumps_are_opposite,
    mixing_in_place_is_exact,
    sums_are_rounded_to_nearest,
    nonfinite_numbers_stay,
    other_threads_go_on,
)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("backend", BACKENDS)
def test_kernels_keep_the_contract(backend: str, check: Check, dtype: str) -> None:
    """One check of one backend for one type."""
    try:
        subject = BACKENDS[backend]()
    except ConfigError as error:  # CuPy is here, and no GPU
        pytest.skip(str(error))
    check(subject, dtype)
