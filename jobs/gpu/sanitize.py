"""Every kernel once, on arrays that end where their memory ends: for compute-sanitizer.

CuPy's pool hands out pieces of larger blocks, in which a read past the end is not noticed;
here each array is an allocation of its own. Lengths leave rests of every kind, and arrays
begin at aligned and at other addresses.
"""

import sys

import cupy
import numpy as np

from acidmpi.kernels import load
from acidmpi.kernels.hyper import SGD, Adam, Add

LENGTHS = (1, 3, 4, 7, 8, 1021, 4096 + 5)
CHANCE = np.random.default_rng(0)
DTYPES = ("float32", "float64", "float16", "uint16")


def arrays(dtype: str, length: int, shift: int, count: int) -> list:
    """Random positive arrays whose last byte is the last of their memory.

    The numbers come from the host, so that no kernel but ours runs.
    """
    made = []
    for _ in range(count):
        values = np.abs(CHANCE.standard_normal(length + shift)).astype("float32")
        whole = cupy.empty(length + shift, dtype)
        if dtype == "uint16":  # bfloat16: the upper half of a float32
            whole.set((values.view("uint32") >> 16).astype("uint16"))
        else:
            whole.set(values.astype(dtype))
        made.append(whole[shift:])
    return made


def once(kernels, dtype: str, length: int, shift: int) -> None:
    """All kernels on one kind of arrays."""
    wide = "float64" if dtype == "float64" else "float32"
    x, sent, received, gradient, out = arrays(dtype, length, shift, 5)
    x_tilde, first, second = arrays(wide, length, shift, 3)
    for companion in (x_tilde, None):
        kernels.snapshot(x, companion, out, 0.3 if companion is not None else 0.0)
        kernels.apply_exchange(x, companion, sent, received, 0.01, 0.02)
        sgd = SGD(0.01, 0.9, weight_decay=1e-3, zero_gradient=True)
        adam = Adam(0.01, 0.9, 0.99, 1e-8, 1e-3, True, 3)
        for hyper, state in (
            (SGD(0.01), ()),
            (sgd, (first,)),
            (adam, (first, second)),
            (Add(), ()),
        ):
            weight = 0.3 if companion is not None else 0.0
            kernels.apply_gradient(x, companion, gradient, state, weight, hyper)
            word = cupy.zeros(1, "uint64")
            kernels.find_nonfinite(gradient, word, 0)
            told = kernels.unless(word)
            told.apply_gradient(x, companion, gradient, state, weight, hyper)
    kernels.apply_exchange(x, x_tilde, x, x_tilde, 0.01, -0.01)


def main() -> int:
    """Run them all; the sanitizer's status tells."""
    cupy.cuda.set_allocator(None)
    kernels = load("cuda")
    for dtype in DTYPES:
        for length in LENGTHS:
            for shift in (0, 1):
                once(kernels, dtype, length, shift)
    cupy.cuda.Device().synchronize()
    print(f"ran {len(DTYPES) * len(LENGTHS) * 2} kinds of arrays")
    return 0


if __name__ == "__main__":
    sys.exit(main())
