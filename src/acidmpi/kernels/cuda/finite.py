"""CUDA C++ that looks for a NaN or an infinity and notes where the first one is.

The answer is a word in the device's memory: zero as long as nothing was found, else the
complement of the lowest position, so that zero is what memory is cleared to and the
largest of all answers is the first position.
"""

import numpy as np

from acidmpi.kernels.cuda.source import PACK_BYTES, THREADS, names, types
from acidmpi.kernels.variants import Variant

LOOP = "finite"
"""The name of its variants, which no CPU needs."""

_DTYPES = "dfeH"


def source(variant: Variant) -> str:
    """CUDA C++ with two kernels: for an aligned array, and for any.

    Args:
        variant: `LOOP` and the type of the array.

    Raises:
        TypeError: there is no kernel for this type.
    """
    kind = variant.arrays
    if kind not in _DTYPES:
        raise TypeError(
            "gradients are float64, float32, float16 or uint16 (bfloat16), got "
            f"{np.dtype(kind)}"
        )
    packs, single = names(variant)
    width = PACK_BYTES // np.dtype(kind).itemsize
    return "\n".join([types(kind), _kernel(packs, width), _kernel(single, 1)])


def position(word: int) -> int | None:
    """Where the first one is; None if all numbers are finite."""
    return None if word == 0 else ~word & (1 << 64) - 1


def _kernel(name: str, width: int) -> str:
    """A thread comes by rising positions: the first that it finds is its lowest."""
    align = f"alignas({PACK_BYTES}) " if width > 1 else ""
    return f"""
namespace {name}_types {{
struct {align}Pack {{ T v[{width}]; }};
__device__ __forceinline__ bool is_finite(T stored)
{{
    const W value = load(stored);
    return value - value == (W) 0;
}}
}}
extern "C" __global__ void __launch_bounds__({THREADS})
{name}(const T* gradient, long long n, long long start, unsigned long long* word)
{{
    using namespace {name}_types;
    const long long stride = (long long) gridDim.x * blockDim.x;
    const long long me = (long long) blockIdx.x * blockDim.x + threadIdx.x;
    const long long packs = n / {width};
    unsigned long long found = 0;
    for (long long i = me; i < packs; i += stride) {{
        const Pack pack = reinterpret_cast<const Pack*>(gradient)[i];
#pragma unroll
        for (int k = 0; k < {width}; ++k)
            if (found == 0 && !is_finite(pack.v[k]))
                found = ~(unsigned long long) (start + i * {width} + k);
    }}
#pragma unroll 1
    for (long long i = packs * {width} + me; i < n; i += stride)
        if (found == 0 && !is_finite(gradient[i]))
            found = ~(unsigned long long) (start + i);
    if (found != 0) atomicMax(word, found);
}}
"""
