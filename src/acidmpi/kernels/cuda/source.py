"""CUDA C++ of one kernel for one combination of types.

Each array is read once and written once, 16 bytes at a time where all of them begin at
multiples of 16 bytes; a second kernel in the same source takes any address. Scalars are
doubles, rounded on the device as the CPU's loops round them. No header is needed, so
NVRTC alone compiles it. Multiplications and additions must stay apart (`OPTIONS`): the
baseline gets the same bits with and without a companion.

A kernel is given a table of *parts*: where the arrays of each are and with which numbers,
as one structure, so that the groups of an optimizer are one launch. Each part has some of
the blocks, whose threads stride through it: any number is right, and one thread enough.

Kernels that apply a gradient take the address of a word besides, or none. If the word is
not zero, which `kernels.cuda.finite` decides, they mix and leave the gradient out.
"""

from typing import NamedTuple

from acidmpi.kernels.variants import LAYOUTS, Variant

OPTIONS = ("--std=c++17", "--fmad=false")
"""For NVRTC, beside the architecture."""

THREADS = 256
"""Threads of a block."""

MOST_PARTS = 8
"""Parts of a kernel that applies gradients: a table of them is about a kilobyte."""

PACK_BYTES = 16
"""What one thread reads of `x` at a time."""

_STORED = {"d": "double", "f": "float", "e": "unsigned short", "H": "unsigned short"}
_BYTES = {"d": 8, "f": 4, "e": 2, "H": 2}

_SAME = """
__device__ __forceinline__ W load(T value) { return value; }
__device__ __forceinline__ T store(W value) { return value; }
"""

_FLOAT16 = """
#ifdef __CUDACC_RTC__
__device__ __forceinline__ W load(T value)
{
    W result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value));
    return result;
}
__device__ __forceinline__ T store(W value)
{
    T result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
    return result;
}
#endif
"""

_BFLOAT16 = """
union Bits { float value; unsigned int bits; };
__device__ __forceinline__ W load(T value)
{
    Bits whole;
    whole.bits = (unsigned int) value << 16;
    return whole.value;
}
__device__ __forceinline__ T store(W value)
{
    Bits whole;
    whole.value = value;
    const unsigned int upper = whole.bits >> 16;
    const bool is_nan = (whole.bits & 0x7fffffffu) > 0x7f800000u;
    return (T) (is_nan ? upper | 0x40u : (whole.bits + 0x7fffu + (upper & 1u)) >> 16);
}
"""

_ELEMENTS = {"d": _SAME, "f": _SAME, "e": _FLOAT16, "H": _BFLOAT16}


class Role(NamedTuple):
    """One array of a kernel."""

    name: str
    stored: str
    """`T`, the type of x, or `W`, in which is computed."""
    access: str
    """r, w or both; z: zeroed if `zero_gradient`."""


class _Loop(NamedTuple):
    roles: tuple[Role, ...]
    scalars: tuple[str, ...]
    body: str
    """Works on one element of each array, in `W`."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_X = Role("x", "T", "rw")
_TILDE = Role("x_tilde", "W", "rw")
_GRADIENT = Role("gradient", "T", "rz")

_MIX = """
#ifdef X_TILDE
const W share = (W) weight;
if (share != (W) 0) {
    const W flow = share * (x_tilde - x);
    x = x + flow;
    x_tilde = x_tilde - flow;
}
#endif
"""

_SLOPE = """
W slope = maximize ? -gradient : gradient;
if ((W) decay != (W) 0) slope = slope + (W) decay * x;
"""

_STEP = """
x = x - update;
#ifdef X_TILDE
x_tilde = x_tilde - update;
#endif
"""


def _unless_told(update: str) -> str:
    """What is left out where the gradient is not to be applied."""
    return "if (apply) {\n" + update + "}\n"


_LOOPS = {
    "snapshot": _Loop(
        (Role("x", "T", "r"), Role("x_tilde", "W", "r"), Role("out", "T", "w")),
        ("weight",),
        "out = (W) weight != (W) 0 ? x + (W) weight * (x_tilde - x) : x;",
    ),
    "exchange": _Loop(
        (_X, _TILDE, Role("sent", "T", "r"), Role("received", "T", "r")),
        ("a", "b"),
        """
const W difference = sent - received;
x = x - (W) a * difference;
#ifdef X_TILDE
x_tilde = x_tilde - (W) b * difference;
#endif
""",
    ),
    "mix": _Loop(
        (_X, _TILDE),
        ("a", "b"),
        """
const W difference = x - x_tilde;
x = x - (W) a * difference;
x_tilde = x_tilde - (W) b * difference;
""",
    ),
    "sgd": _Loop(
        (_X, _TILDE, _GRADIENT, Role("momentum", "W", "rw")),
        _words("weight lr keep gain decay nesterov maximize first zero_gradient"),
        _MIX
        + _unless_told(
            _SLOPE
            + """
#ifdef MOMENTUM
momentum = first ? slope : (W) keep * momentum + (W) gain * slope;
slope = nesterov ? slope + (W) keep * momentum : momentum;
#endif
const W update = (W) lr * slope;
"""
            + _STEP
        ),
    ),
    "adam": _Loop(
        (_X, _TILDE, _GRADIENT, Role("first", "W", "rw"), Role("second", "W", "rw")),
        _words("weight lr beta_1 beta_2 eps decay shrink root maximize zero_gradient"),
        _MIX
        + _unless_told(
            _SLOPE
            + """
const W gain_1 = (W) (1.0 - beta_1), gain_2 = (W) (1.0 - beta_2);
const W change = slope - first;
// Interpolation from the nearer end, as torch does it.
first = gain_1 < (W) 0.5 ? first + gain_1 * change : slope - (W) beta_1 * change;
second = (W) beta_2 * second + gain_2 * slope * slope;
const W update = (W) lr * first / (sqrt(second) / (W) root + (W) eps);
if ((W) shrink != (W) 0) {
#ifdef X_TILDE
    x_tilde = x_tilde - (W) shrink * x;
#endif
    x = x * (W) (1.0 - shrink);
}
"""
            + _STEP
        ),
    ),
    "add": _Loop(
        (_X, _TILDE, _GRADIENT),
        ("weight", "zero_gradient"),
        _MIX + _unless_told("const W update = -gradient;\n" + _STEP),
    ),
}


def names(variant: Variant) -> tuple[str, str]:
    """Names of the two kernels: for aligned arrays, and for any."""
    symbol = "_".join(variant)
    return f"{symbol}_packs", f"{symbol}_single"


def source(variant: Variant) -> str:
    """CUDA C++ with the two kernels of `variant`.

    Args:
        variant: a loop and its types, as `variants.check` accepts them.
    """
    x = variant.arrays[0]
    loop = _LOOPS[variant.loop]
    roles = present(variant)
    defined = [f"#define {role.name.upper()}" for role in roles if role.name != "x"]
    packs, single = names(variant)
    lines = [
        *defined,
        types(x),
        _table(roles, variant),
        _element(loop, roles, variant),
        _kernel(packs, PACK_BYTES // _BYTES[x], roles, variant),
        _kernel(single, 1, roles, variant),
    ]
    return "\n".join(lines)


def types(x: str) -> str:
    """`T`, which is stored, `W`, in which is computed, and the ways between them."""
    wide = "double" if x == "d" else "float"
    return f"typedef {_STORED[x]} T;\ntypedef {wide} W;\n{_ELEMENTS[x]}"


def takes_word(loop: str) -> bool:
    """Whether a kernel applies a gradient, and so takes a word's address, or 0, last."""
    return _GRADIENT in _LOOPS[loop].roles


def present(variant: Variant) -> list[Role]:
    """The arrays of a variant that are there."""
    roles = _LOOPS[variant.loop].roles
    return [r for r, k in zip(roles, variant.arrays, strict=True) if k != "n"]


def most_parts(loop: str) -> int:
    """How many parts one launch takes."""
    return MOST_PARTS if takes_word(loop) else 1


def part_format(variant: Variant) -> str:
    """A part for `struct`: addresses, length, the block behind its last, scalars."""
    addresses = "q" * len(present(variant))
    return f"{addresses}qq{LAYOUTS[variant.loop].scalars}0q"


def _table(roles: list[Role], variant: Variant) -> str:
    """What `part_format` packs."""
    members = [f"{role.stored}* {role.name};" for role in roles]
    members += ["long long n, end;", *(f"{s};" for s in _scalars(variant))]
    return f"""
struct Part {{ {" ".join(members)} }};
struct Table {{ Part parts[{most_parts(variant.loop)}]; }};
"""


def _scalars(variant: Variant) -> list[str]:
    kinds = LAYOUTS[variant.loop].scalars
    named = zip(kinds, _LOOPS[variant.loop].scalars, strict=True)
    return [f"{'double' if kind == 'd' else 'bool'} {name}" for kind, name in named]


def _element(loop: _Loop, roles: list[Role], variant: Variant) -> str:
    """One element of each array: widened, computed with, rounded once."""
    places = ", ".join(f"{role.stored}& {role.name}_" for role in roles)
    reads = [f"W {r.name} = {_read(r)};" for r in roles]
    writes = [f"{r.name}_ = {_write(r)};" for r in roles if "w" in r.access]
    zero = [f"if (zero_gradient) {r.name}_ = (T) 0;" for r in roles if "z" in r.access]
    body = "\n".join([*reads, loop.body, *writes, *zero])
    scalars = ", ".join(_scalars(variant))
    if takes_word(variant.loop):
        scalars += ", bool apply"
    return (
        f"__device__ __forceinline__ void element({places}, {scalars})\n{{\n{body}\n}}"
    )


def _read(role: Role) -> str:
    if "r" not in role.access:
        return "(W) 0"
    return f"load({role.name}_)" if role.stored == "T" else f"{role.name}_"


def _write(role: Role) -> str:
    return f"store({role.name})" if role.stored == "T" else role.name


def _kernel(name: str, width: int, roles: list[Role], variant: Variant) -> str:
    """The loop over packs of `width` elements, and over what is left of them."""
    members = [f"{role.stored}* {role.name}" for role in roles] + _scalars(variant)
    reads = "\n".join(f"    {m} = part.{m.split()[-1]};" for m in members)
    argument = "const __grid_constant__ Table table"
    passed = ", ".join(_LOOPS[variant.loop].scalars)
    look = ""
    if takes_word(variant.loop):
        argument += ", const unsigned long long* word"
        passed += ", apply"
        look = "    const bool apply = word == nullptr || *word == 0;\n"
    loads = "\n".join(
        f"        Pack_{r.stored} {r.name}_s;" + _load_pack(r) for r in roles
    )
    of_pack = ", ".join(f"{role.name}_s.v[k]" for role in roles)
    stores = "\n".join(_store_pack(r) for r in roles if r.access != "r")
    of_rest = ", ".join(f"{role.name}[i]" for role in roles)
    align = f"alignas({PACK_BYTES}) " if width > 1 else ""
    return f"""
namespace {name}_types {{
struct {align}Pack_T {{ T v[{width}]; }};
struct {align}Pack_W {{ W v[{width}]; }};
}}
extern "C" __global__ void __launch_bounds__({THREADS})
{name}({argument})
{{
    using namespace {name}_types;
{look}    int mine = 0;
    long long begin = 0;
    while (blockIdx.x >= table.parts[mine].end) begin = table.parts[mine++].end;
    const Part& part = table.parts[mine];
{reads}
    const long long n = part.n, stride = (part.end - begin) * blockDim.x;
    const long long me = (blockIdx.x - begin) * blockDim.x + threadIdx.x;
    const long long packs = n / {width};
    for (long long i = me; i < packs; i += stride) {{
{loads}
#pragma unroll
        for (int k = 0; k < {width}; ++k)
            element({of_pack}, {passed});
{stores}
    }}
#pragma unroll 1
    for (long long i = packs * {width} + me; i < n; i += stride)
        element({of_rest}, {passed});
}}
"""


def _load_pack(role: Role) -> str:
    if "r" not in role.access:
        return ""
    return f" {role.name}_s = reinterpret_cast<Pack_{role.stored}*>({role.name})[i];"


def _store_pack(role: Role) -> str:
    line = f"reinterpret_cast<Pack_{role.stored}*>({role.name})[i] = {role.name}_s;"
    return f"        {'if (zero_gradient) ' if 'z' in role.access else ''}{line}"
