import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.kernels.cpu.backend import CpuKernels
from acidmpi.kernels.cpu.compiler import intermediate_code
from acidmpi.kernels.hyper import SGD, Adam, Add
from acidmpi.kernels.variants import Variant

RULES = (SGD(0.1), SGD(0.1, 0.9), Adam(0.1, 0.9, 0.99, 1e-8, 0, False, 1), Add())
LOADS = """
import pathlib, sys, numpy as np
from acidmpi.kernels import load
assert not {"numba", "llvmlite"} & set(sys.modules), "importing the package compiles"
kernels = load("cpu")
from acidmpi.kernels.cpu import store
store.folders = lambda: [pathlib.Path(sys.argv[1])]
assert "numba" not in sys.modules, "loading compiles"
x, y, out = np.ones(5), np.zeros(5), np.empty(5)
kernels.snapshot(x, y, out, 0.25)
assert (out == 0.75).all()
print("numba" in sys.modules)
"""


def arrays(dtype="f4", size=10, x_tilde=True):
    x, gradient, out = (np.ones(size, dtype) for _ in range(3))
    wide = np.float64 if x.dtype == np.float64 else np.float32
    tilde, first, second = (np.ones(size, wide) for _ in range(3))
    return x, tilde if x_tilde else None, gradient, out, (first, second)


def run_everything(kernels, dtype, x_tilde):
    x, tilde, gradient, out, (first, second) = arrays(dtype, 10, x_tilde)
    kernels.snapshot(x, tilde, out, 0.3)
    kernels.apply_exchange(x, tilde, gradient, out, 0.5, 0.5)
    if x_tilde:
        kernels.apply_exchange(x, tilde, x, tilde, 0.5, -0.5)
    for rule, state in zip(RULES, ((), (first,), (first, second), ()), strict=True):
        kernels.apply_gradient(x, tilde, gradient, state, 0.3, rule)


@pytest.mark.parametrize("x_tilde", [True, False])
def test_nothing_is_left_to_compile_after_warm(monkeypatch, x_tilde):
    kernels = CpuKernels()
    kernels.warm(["f4", np.float64], RULES, x_tilde)

    def forbidden(self, variant):
        raise AssertionError(f"{variant} is compiled after all")

    monkeypatch.setattr(CpuKernels, "_link", forbidden)
    for dtype in ("f4", "f8"):
        run_everything(kernels, dtype, x_tilde)


def test_threads_may_ask_for_the_same_kernel_at_once():
    kernels = CpuKernels()
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(run_everything, kernels, "f4", True) for _ in range(16)]
    for job in jobs:
        job.result()


def test_ranks_that_start_together_all_work_and_the_next_one_needs_no_compiler(
    tmp_path,
):
    def start():
        return subprocess.Popen(
            [sys.executable, "-c", LOADS, str(tmp_path)],
            text=True,
            stdout=-1,
            stderr=-1,
        )

    ranks = [start() for _ in range(3)]
    assert [rank.communicate() for rank in ranks] == [("True\n", "")] * 3
    assert start().communicate() == ("False\n", "")
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("snapshot_ddd-")


@pytest.mark.parametrize(
    ("loop", "types"),
    [
        ("snapshot", "fff"),
        ("mix", "dd"),
        ("exchange", "HfHH"),
        ("sgd", "ffff"),
        ("sgd", "fnff"),
        ("adam", "efeff"),
    ],
)
def test_loops_become_vector_instructions(loop, types):
    assert re.search(r"<\d+ x (float|double)>", intermediate_code(Variant(loop, types)))


def test_arrays_of_different_lengths_are_refused():
    x, tilde, gradient, out, _ = arrays()
    with pytest.raises(ValueError, match="one length, got"):
        load("cpu").snapshot(x, tilde, out[:-1], 0.3)
    with pytest.raises(ValueError, match="one length, got"):
        load("cpu").snapshot(x, None, out[:-1], 0.3)
    with pytest.raises(ValueError, match="one length, got"):
        load("cpu").apply_gradient(x, tilde, gradient[1:], (), 0.0, Add())


def test_types_that_do_not_fit_are_refused():
    x, tilde, gradient, out, _ = arrays()
    with pytest.raises(TypeError, match="float32, float32, float64"):
        load("cpu").snapshot(x, tilde, out.astype("f8"), 0.3)
    with pytest.raises(TypeError, match="int32"):
        load("cpu").apply_exchange(*(x.astype("i4"),) * 4, 0.5, 0.5)
    with pytest.raises(TypeError, match="float16, float16"):
        load("cpu").apply_gradient(*(x.astype("f2"),) * 3, (), 0.0, Add())
    for rule in (SGD(0.1, 0.9), RULES[2]):
        with pytest.raises(TypeError, match=r"takes \(float32, float32, float32\)"):
            load("cpu").apply_gradient(x, tilde, gradient, (), 0.0, rule)
    with pytest.raises(TypeError, match="complex64"):
        load("cpu").warm(["c8"], [Add()])


def test_memory_that_cannot_be_used_is_refused():
    x, tilde, _, out, _ = arrays(size=20)
    with pytest.raises(ValueError, match="contiguous and writable"):
        load("cpu").snapshot(x[::2], tilde[::2], out[:10], 0.3)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable=False"):
        load("cpu").snapshot(x, tilde, out, 0.3)


def test_an_unknown_backend_is_named():
    with pytest.raises(ConfigError, match=r"'cpu', 'reference', got 'abacus'"):
        load("abacus")
    assert load("cpu") is load("cpu")
