"""A stand-in for a GPU: the CUDA sources, compiled by the host's C++ compiler.

Threads run one after the other, blocks too; what a real GPU adds is order and speed. It
shows that the arithmetic, the packs and the rests are right, on NumPy arrays.
"""

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("clang++")

_PRELUDE = """
#include <cmath>
#include <immintrin.h>
using std::sqrt;
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __grid_constant__
struct Place { unsigned int x; };
static Place gridDim, blockDim, blockIdx, threadIdx;
static void place(unsigned blocks, unsigned threads, unsigned block, unsigned thread)
{ gridDim.x = blocks; blockDim.x = threads; blockIdx.x = block; threadIdx.x = thread; }
static inline void atomicMax(unsigned long long* place, unsigned long long value)
{ if (*place < value) *place = value; }
"""

_FLOAT16 = """
static inline float load(unsigned short value) { return _cvtsh_ss(value); }
static inline unsigned short store(float value) { return _cvtss_sh(value, 0); }
"""


class HostDevice:
    """See `acidmpi.kernels.cuda.backend.Device`.

    Args:
        folder: where binaries are kept.
        threads: how many threads a block has here, whatever it is told.
    """

    multiprocessors = 2

    def __init__(self, folder: Path, threads: int = 3) -> None:
        self._folder = folder
        self._threads = threads
        self.launched: list[str] = []
        """Names of the kernels launched."""

    def compile(self, source: str, names: tuple[str, ...]):
        """Kernels of one source."""
        half = _FLOAT16 if "__CUDACC_RTC__" in source else ""
        text = _PRELUDE + half + "".join([source, *map(_place_of, names)])
        library = self._build(text)
        return tuple(self._launcher(library, name) for name in names)

    def address(self, array) -> int:
        """Where an array begins."""
        return array.ctypes.data

    def structure(self, data: bytes):
        """By value, on the stack."""
        words = ctypes.c_longlong * (len(data) // 8)
        kind = type("Structure", (ctypes.Structure,), {"_fields_": [("words", words)]})
        return kind.from_buffer_copy(data)

    def copy(self, destination, origin) -> None:
        """At once."""
        np.copyto(destination, origin)

    def _build(self, text: str) -> ctypes.CDLL:
        path = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.so"
        if not path.exists():
            options = [
                "-std=c++17",
                "-O0",
                "-ffp-contract=off",
                "-mf16c",
                "-fno-strict-aliasing",
            ]
            command = [
                COMPILER,
                *options,
                "-shared",
                "-fPIC",
                "-x",
                "c++",
                "-",
                "-o",
                path,
            ]
            subprocess.run([*map(str, command)], input=text, text=True, check=True)
        return ctypes.CDLL(str(path))

    def _launcher(self, library: ctypes.CDLL, name: str):
        kernel, place = getattr(library, name), getattr(library, f"place_{name}")

        def launch(blocks: int, threads: int, arguments: list) -> None:
            self.launched.append(name)
            words = [ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
            for block in range(blocks):
                for thread in range(self._threads):
                    place(blocks, self._threads, block, thread)
                    kernel(*words)

        return launch


def _place_of(name: str) -> str:
    return (
        f'\nextern "C" void place_{name}(unsigned a, unsigned b, unsigned c, unsigned d)'
        "{ place(a, b, c, d); }\n"
    )
