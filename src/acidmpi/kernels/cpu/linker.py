"""Object files made callable, without the machinery that compiled them."""

import ctypes
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from llvmlite import binding as llvm  # type: ignore[import-untyped,unused-ignore]

from acidmpi.kernels.protocol import Array

_SCALARS: dict[str, Any] = {"d": ctypes.c_double, "?": ctypes.c_bool}


class Linker:
    """Holds the machine code it has linked; for one thread at a time."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine()
        self._engine: Any = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        # Where functions put Numba's null result; they never write anything else.
        self._result = ctypes.c_void_p()

    def link(
        self, code: bytes, symbol: str, arrays: int, scalars: str
    ) -> Callable[..., int]:
        """The function `symbol` of an object file; calls release the GIL.

        Args:
            code: the object file, from `compile_object`.
            symbol: the function's name, new to this linker.
            arrays: how many addresses it takes.
            scalars: a type for each number that follows the length, as in `Layout`.
        """
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        entry = self._engine.get_function_address(symbol)
        prototype = ctypes.CFUNCTYPE(
            ctypes.c_int,
            *[ctypes.c_void_p] * (2 + arrays),
            ctypes.c_ssize_t,
            *(_SCALARS[kind] for kind in scalars),
        )
        return partial(prototype(entry), ctypes.addressof(self._result), None)


def addresses(arrays: Iterable[Array | None]) -> list[int | None]:
    """Where the elements of contiguous and writable arrays begin."""
    try:
        # A fifth of the time of `array.ctypes.data`, and it refuses what is neither.
        return [None if a is None else _addressof(_view(a)) for a in arrays]
    except (TypeError, ValueError):
        return [None if a is None else _slow_address(a) for a in arrays]


_addressof = ctypes.addressof
_view: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer


def _slow_address(array: Array) -> int:
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError(
            "kernels take contiguous and writable arrays, got one with strides "
            f"{array.strides} and writeable={array.flags.writeable}; copy it first"
        )
    return int(array.ctypes.data)  # of an empty array
