"""CUDA kernels without a GPU: NVRTC takes every source, and the host does its sums."""

import re
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from support import nvrtc
from support.host_device import COMPILER, HostDevice

from acidmpi.arrays import bfloat16
from acidmpi.errors import ConfigError
from acidmpi.kernels.cuda import finite
from acidmpi.kernels.cuda import source as sources
from acidmpi.kernels.cuda.backend import CudaKernels
from acidmpi.kernels.cuda.source import (
    OPTIONS,
    most_parts,
    names,
    part_format,
    source,
)
from acidmpi.kernels.hyper import SGD, Adam, Add
from acidmpi.kernels.variants import Variant, needed
from acidmpi.testing.kernel_cases import DTYPES, host, mix, run, same, step, vectors
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
    assert ".local" not in text, "the table was copied"
    table = struct.calcsize(part_format(variant)) * most_parts(variant.loop)
    assert text.count(f"_param_0[{table}]") >= 2, "another layout than is packed"
    assert table <= 4096 - 8
    for word, letters in (("ld", "r"), ("st", "wz")):
        moves = re.findall(rf"{word}\.global\.v(2\.\w64|4\.\w32)", kernels[packs])
        assert len(moves) >= _expected(variant, letters), word


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kind", "dfeH")
def test_nvrtc_takes_the_search_for_numbers_that_are_not_finite(kind, architecture):
    variant = Variant(finite.LOOP, kind)
    text = nvrtc.ptx(finite.source(variant), OPTIONS, architecture)
    kernels = dict(_kernels(text))
    packs, single = names(variant)
    assert set(kernels) == {packs, single}
    for name in kernels:
        assert re.search(r"(atom|red)\.global\.max\.u64", kernels[name])
    assert re.search(r"ld\.global(\.nc)?\.v(2\.\w64|4\.\w32)", kernels[packs])


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


GUARDED = (
    Add(),
    Add(zero_gradient=True),
    SGD(0.1, weight_decay=0.1),
    SGD(0.1, momentum=0.9, nesterov=True, zero_gradient=True),
    Adam(0.1, 0.9, 0.99, 1e-8, 0.1, True, 3),
)


def guarded(word, rule, weight):
    return lambda kernels, v: step(rule, weight)(kernels.unless(word), v)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("x_tilde", [True, False])
@pytest.mark.parametrize("rule", GUARDED, ids=str)
def test_a_word_leaves_the_gradient_out_and_mixes(rule, x_tilde, dtype, folder):
    """To the bit: as without a word, or as mixing alone."""
    subject, word = host(CudaKernels(HostDevice(folder))), np.zeros(1, np.uint64)
    arrays = vectors(dtype, 37, x_tilde=x_tilde)
    weight = 0.3 if x_tilde else 0.0
    for offset in (0, 1):
        word[0] = 0
        free = run(subject, step(rule, weight), arrays, offset)
        _same_all(run(subject, guarded(word, rule, weight), arrays, offset), free)
        mixed = run(subject, mix(weight), arrays, offset) if x_tilde else arrays
        expected = {**arrays, **(vars(mixed) if x_tilde else {})}
        if rule.zero_gradient:
            expected["gradient"] = np.zeros_like(arrays["gradient"])
        word[0] = ~np.uint64(5)
        left_out = run(subject, guarded(word, rule, weight), arrays, offset)
        _same_all(left_out, SimpleNamespace(**expected))


def groups(kernels, weight, word, together):
    """Ten groups of SGD, one of Adam and one without numbers, in packs and not."""
    chance = np.random.default_rng(7)
    steps = []
    for k in range(12):
        n, adam = (0 if k == 11 else 40 + 30 * k), k == 4
        memory = chance.random((5, n + 40)).astype(np.float32)
        starts = [-array.ctypes.data % 16 // 4 + (k % 3 == 2) for array in memory]
        x, tilde, gradient, first, second = (
            array[start : start + n]
            for array, start in zip(memory, starts, strict=True)
        )
        rule = SGD(0.1 * k, momentum=0.9, zero_gradient=True)
        rule = Adam(0.1, 0.9, 0.99, 1e-8, 0.1, True, 3) if adam else rule
        steps.append((x, tilde, gradient, (first, second) if adam else (first,), rule))
    kept = kernels.unless(word)
    for _ in range(3):
        if together:
            kept.apply_gradients(steps, weight)
        else:
            for *arrays, rule in steps:
                kernels.apply_gradient(*arrays, weight, rule)
        weight += 0.1
    return [array for x, t, g, state, _ in steps for array in (x, t, g, *state)]


@needs_compiler
def test_groups_in_one_launch_are_what_they_are_one_by_one(folder):
    one, all_ = HostDevice(folder), HostDevice(folder)
    word = np.zeros(1, np.uint64)
    alone = groups(CudaKernels(one), 0.2, word, together=False)
    for a, b in zip(groups(CudaKernels(all_), 0.2, word, True), alone, strict=True):
        same(a, b, "a group")
    packs, single = "sgd_ffff_packs", "sgd_ffff_single"
    assert all_.launched == 3 * [packs, single, "adam_fffff_packs"]
    assert [one.launched.count(name) for name in (packs, single)] == [3 * 7, 3 * 3]


@needs_compiler
def test_more_groups_than_a_launch_takes_are_several(folder):
    device, word = HostDevice(folder), np.zeros(1, np.uint64)
    x = np.zeros(19 * 8, np.float64)
    one = np.ones(8)
    steps = [(x[k : k + 8], None, one, (), Add()) for k in range(0, x.size, 8)]
    CudaKernels(device).unless(word).apply_gradients(steps, 0.0)
    assert len(device.launched) == -(-19 // sources.MOST_PARTS)
    assert (x == 1.0).all()


@needs_compiler
def test_kernels_that_are_kept_see_other_arrays(folder):
    word = np.zeros(1, np.uint64)
    kept = CudaKernels(HostDevice(folder)).unless(word)
    for size in (8, 5):
        both = np.zeros((2, size))
        kept.apply_gradients([(*both, np.ones(size), (), Add())], 0.0)
        assert (both == 1.0).all()


def _same_all(actual, expected):
    for name, array in vars(expected).items():
        if array is not None:
            same(getattr(actual, name), array, name)


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_number_that_is_not_finite_is_found(dtype, bad, folder):
    kernels, word = CudaKernels(HostDevice(folder)), np.zeros(1, np.uint64)
    whole = np.full(91, 3e38 if dtype == "float32" else 1.0)  # a sum would overflow
    for length, offset in ((90, 0), (90, 1), (1, 0), (0, 0)):
        for places in ((), (0,), (89,), (88, 41, 63), (5, 4)):
            values = whole.copy()
            values[[offset + p for p in places]] = bad
            made = (
                bfloat16.encode(values) if dtype == "uint16" else values.astype(dtype)
            )
            word[0] = 0
            kernels.find_nonfinite(made[offset : offset + length], word, 1000)
            inside = [1000 + p for p in places if p < length]
            assert finite.position(int(word[0])) == min(inside, default=None)


@needs_compiler
def test_an_earlier_place_stays_the_first(folder):
    kernels, word = CudaKernels(HostDevice(folder)), np.zeros(1, np.uint64)
    kernels.find_nonfinite(np.full(3, np.nan, np.float32), word, 7)
    kernels.find_nonfinite(np.full(3, np.nan, np.float32), word, 70)
    assert finite.position(int(word[0])) == 7


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong"), [("*word == 0", "true"), ("if (apply) {", "if (true) {")]
)
def test_a_word_that_is_not_heeded_is_found(right, wrong, tmp_path, monkeypatch):
    def faulty(variant):
        assert right in source(variant) or variant.loop == "mix"
        return source(variant).replace(right, wrong)

    monkeypatch.setattr("acidmpi.kernels.cuda.backend.source", faulty)
    with pytest.raises(AssertionError, match="some bit differs"):
        test_a_word_leaves_the_gradient_out_and_mixes(
            GUARDED[0], True, "float32", tmp_path
        )


def test_no_other_type_is_searched():
    with pytest.raises(TypeError, match="got int64"):
        finite.source(Variant(finite.LOOP, "l"))


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
