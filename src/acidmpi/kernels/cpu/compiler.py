"""From a loop to machine code: the only moment that Numba is imported.

Numba compiles the loop to a function on bare pointers, which needs neither Python nor
Numba's runtime, so that its machine code can be kept in a file and linked anywhere.
"""

from typing import Any

import numba
from llvmlite import binding as llvm  # type: ignore[import-untyped,unused-ignore]
from numba import types

from acidmpi.kernels.cpu import loops
from acidmpi.kernels.variants import LAYOUTS, Variant

# As Numba's own annotations differ from one version to the next, none are relied on.
_njit: Any = numba.njit
_pointer: Any = types.CPointer

_ARRAYS = {
    "d": _pointer(types.float64),
    "f": _pointer(types.float32),
    "e": _pointer(types.int16),
    "H": _pointer(types.uint16),
    "n": types.none,
}
_SCALARS = {"d": types.float64, "?": types.boolean}


_C_LIBRARY = {"sqrt", "sqrtf"}


def compile_object(variant: Variant, symbol: str) -> bytes:
    """An object file for this processor that defines `symbol` and needs only C.

    The function follows Numba's convention: two pointers, to a result that is always
    null and to an exception that is never raised, come before the loop's arguments.
    """
    module = llvm.parse_assembly(intermediate_code(variant))
    (function,) = [f for f in module.functions if not f.is_declaration]
    function.name = symbol
    called = {f.name for f in module.functions if f.is_declaration}
    foreign = {n for n in called - _C_LIBRARY if not n.startswith("llvm.")}
    if foreign:
        raise RuntimeError(f"a kernel must stand alone, {symbol} calls {foreign}")
    code: bytes = _target_machine().emit_object(module)
    return code


def intermediate_code(variant: Variant) -> str:
    """The loop for these types as text, optimised for this processor."""
    signature = types.void(
        *(_ARRAYS[kind] for kind in variant.arrays),
        types.intp,
        *(_SCALARS[kind] for kind in LAYOUTS[variant.loop].scalars),
    )
    compiled = _njit(
        signature,
        error_model="numpy",
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(getattr(loops, variant.loop))
    (text,) = compiled.inspect_llvm().values()
    return str(text)


def _target_machine() -> Any:
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )
