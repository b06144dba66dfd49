"""CUDA kernels without a GPU: NVRTC takes every source, and the host does its sums."""

import re

import numpy as np
import pytest
from support import nvrtc
from support.host_device import COMPILER, HostDevice

from acidmpi.errors import ConfigError
from acidmpi.kernels.cuda import source as sources
from acidmpi.kernels.cuda.backend import CudaKernels
from acidmpi.kernels.cuda.source import OPTIONS, names, source
from acidmpi.kernels.hyper import SGD, Adam, Add
from acidmpi.kernels.variants import Variant, needed
from acidmpi.testing.kernel_cases import DTYPES, host
from acidmpi.testing.kernels import CONTRACT

RULES = (
    Add(),
    SGD(0.1),
    SGD(0.1, momentum=0.9),
    Adam(0.1, 0.9, 0.99, 1e-8, 0.0, True, 1),
)
VARIANTS = tuple(
    dict.fromkeys(v for tilde in (True, False) for v in needed(DTYPES, RULES, tilde))
)

PACKS = "for (long long i = me; i < packs"

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("variant", VARIANTS, ids="_".join)
def test_nvrtc_takes_every_source(variant, architecture):
    # One pack in a turn of the loop, so that each array's moves are counted once.
    once = source(variant).replace(PACKS, "#pragma unroll 1\n" + PACKS)
    text = nvrtc.ptx(once, OPTIONS, architecture)
    kernels = dict(_kernels(text))
    packs, single = names(variant)
    assert set(kernels) == {packs, single}
    assert " fma.rn" not in text, "a multiplication and an addition became one"
    for word, letters in (("ld", "r"), ("st", "wz")):
        moves = re.findall(rf"{word}\.global\.v(2\.\w64|4\.\w32)", kernels[packs])
        assert len(moves) >= _expected(variant, letters), word


def _expected(variant, access):
    """Packs of 16 bytes: one for x and what is like it, more for wider companions."""
    wide = 8 if variant.arrays[0] == "d" else 4
    stored = np.dtype(variant.arrays[0]).itemsize
    packs = {"T": 1, "W": wide // stored}
    roles = sources.present(variant)
    return sum(packs[role.stored] for role in roles if set(role.access) & set(access))


def _kernels(ptx):
    parts = re.split(r"\.visible \.entry (\w+)", ptx)
    return zip(parts[1::2], parts[2::2], strict=True)


def test_a_source_that_is_wrong_is_refused():
    with pytest.raises(nvrtc.CompileError, match="undefined"):
        nvrtc.ptx("__global__ void f() { nothing(); }", OPTIONS, "sm_90")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("host-device")


@needs_compiler
@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_arithmetic_keeps_the_contract(check, dtype, folder):
    check(host(CudaKernels(HostDevice(folder))), dtype)


@needs_compiler
def test_aligned_arrays_are_taken_in_packs_and_others_one_by_one(folder):
    device = HostDevice(folder)
    kernels = CudaKernels(device)
    memory = np.zeros(200, np.float32)
    start = -memory.ctypes.data % 16 // 4
    x, other = memory[start : start + 70], memory[start + 100 : start + 170]
    kernels.apply_exchange(x, None, other, other, 0.5, 0.5)
    kernels.apply_exchange(x[1:], None, other[1:], other[1:], 0.5, 0.5)
    kernels.apply_exchange(x[4:], None, other[3:-1], other[4:], 0.5, 0.5)
    assert [name.rpartition("_")[2] for name in device.launched] == [
        "packs",
        "single",
        "single",
    ]


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong", "check", "dtype"),
    [
        (
            "x = x + flow;\n    x_tilde = x_tilde - flow;",
            "x = x + flow;\n    x_tilde = x_tilde - share * (x_tilde - x);",
            "gradients_follow_the_reference",
            "float32",
        ),
        (
            "const W update = (W) lr * slope;",
            "const W update = (W) (lr * slope) + 0 * x_tilde;",
            "weight_zero_is_the_baseline",
            "float32",
        ),
        (
            "(whole.bits + 0x7fffu + (upper & 1u)) >> 16",
            "upper",
            "sums_are_rounded_to_nearest",
            "uint16",
        ),
        (
            "i < n; i += stride",
            "i < n - 1; i += stride",
            "exchanges_follow_the_reference",
            "float32",
        ),
        (
            "packs * 4 + me",
            "packs * 4 - 4 + me",
            "exchanges_follow_the_reference",
            "float64",
        ),
    ],
)
def test_a_planted_fault_is_found(right, wrong, check, dtype, folder, monkeypatch):
    if dtype == "float64":
        right, wrong = right.replace("4", "2"), wrong.replace("4", "2")
    planted = []

    def faulty(variant: Variant) -> str:
        text = source(variant)
        # 16-byte packs or not: either kernel alone shows it at some offset
        planted.append(right in text)
        return (
            text.replace(right, wrong)
            if "#define X_TILDE" in text or "x_tilde" not in wrong
            else text
        )

    monkeypatch.setattr("acidmpi.kernels.cuda.backend.source", faulty)
    (run,) = (c for c in CONTRACT if c.__name__ == check)
    with pytest.raises(AssertionError):
        run(host(CudaKernels(HostDevice(folder))), dtype)
    assert any(planted)


def test_arrays_of_another_length_are_refused(tmp_path):
    kernels = CudaKernels(HostDevice(tmp_path))
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="one length"):
        kernels.apply_exchange(x, None, x, x[:2], 0.5, 0.5)


def test_types_without_a_kernel_are_refused(tmp_path):
    kernels = CudaKernels(HostDevice(tmp_path))
    x = np.zeros(3, np.int64)
    with pytest.raises(TypeError, match="float64, float32, float16"):
        kernels.apply_exchange(x, None, x, x, 0.5, 0.5)


def test_without_cupy_the_message_names_the_cure(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(ConfigError, match=r"acidmpi\[cuda13\]"):
        CudaKernels()


def test_the_sources_need_no_header():
    assert all("#include" not in source(variant) for variant in VARIANTS)
    assert sources.PACK_BYTES == 16
