"""The three memory-bound updates of a rank, once per backend, behind one protocol."""

from functools import cache
from importlib import import_module

from acidmpi.errors import ConfigError
from acidmpi.kernels.protocol import Kernels

BACKENDS = {
    "cuda": ("acidmpi.kernels.cuda.backend", "CudaKernels"),
    "cpu": ("acidmpi.kernels.cpu.backend", "CpuKernels"),
    "reference": ("acidmpi.kernels.reference", "ReferenceKernels"),
}


@cache
def load(name: str) -> Kernels:
    """The backend called `name`, one per process; only now its compiler is imported."""
    if name not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        raise ConfigError(f"kernels exist for {known}, got {name!r}")
    module, attribute = BACKENDS[name]
    kernels: Kernels = getattr(import_module(module), attribute)()
    return kernels
