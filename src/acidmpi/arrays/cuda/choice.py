"""Which device a rank computes on. Nothing is imported before a GPU is wanted or there."""

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

from acidmpi.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(asked: str, local_rank: int) -> int | None:
    """The index of this rank's GPU among those that it can see; None is the CPU.

    Ranks of one machine take its GPUs in turn. What the launcher made visible
    (`CUDA_VISIBLE_DEVICES`) is all that counts: a launcher that shows each rank one GPU
    has chosen, and that one is index 0.

    Args:
        asked: `auto`, `cpu` or `cuda`.
        local_rank: number of this rank among those of its machine.

    Raises:
        ConfigError: `cuda` was asked for, and there is no GPU or no CuPy.
    """
    if asked not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)}, got {asked!r}")
    if asked == "cpu":
        return None
    try:
        count = count_gpus()
    except ConfigError:
        if asked == "cuda":
            raise
        return None
    return local_rank % count


def count_gpus() -> int:
    """How many GPUs CUDA shows this process; at least one.

    Raises:
        ConfigError: none, or CuPy cannot be used.
    """
    cupy = import_cupy()
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise _no_gpu(str(error)) from error
    if count == 0:
        raise _no_gpu("none")
    return count


def import_cupy() -> Any:
    """CuPy.

    Raises:
        ConfigError: it is missing, or does not fit the CUDA driver of this machine.
    """
    if importlib.util.find_spec("cupy") is None:
        raise ConfigError(
            "device cuda needs CuPy, got none; install acidmpi[cuda13] (or "
            "acidmpi[cuda12] for a driver older than 580), or take device cpu"
        )
    try:
        import acidmpi.arrays.cuda.gpu  # noqa: F401 - the one place that imports it
    except ImportError as error:
        raise ConfigError(
            f"device cuda needs a CuPy that can be imported, got: {error}; install one "
            "that fits CUDA here: acidmpi[cuda13] or acidmpi[cuda12], never both"
        ) from error
    return sys.modules["cupy"]


def check_version() -> None:
    """Raise `ConfigError` if CuPy was built for a newer CUDA than the driver knows."""
    runtime = import_cupy().cuda.runtime
    try:
        built, driver = runtime.runtimeGetVersion(), runtime.driverGetVersion()
    except runtime.CUDARuntimeError as error:
        raise _no_gpu(str(error)) from error
    if driver == 0:
        raise _no_gpu("no CUDA driver")
    if built // 1000 > driver // 1000:
        raise ConfigError(
            f"CuPy must be built for the driver's CUDA, got CUDA {built // 1000} and a "
            f"driver for CUDA {driver // 1000}; install acidmpi[cuda{driver // 1000}] in "
            "its place, or a newer driver"
        )


def _no_gpu(reason: str) -> ConfigError:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = "" if shown is None else f" with CUDA_VISIBLE_DEVICES={shown!r}"
    return ConfigError(
        f"device cuda needs a GPU that this process can see, got {reason}{hint}; ask the "
        "batch system for one, look at nvidia-smi, or take device cpu"
    )


def make_gpu(index: int, handle: Callable[[], int] | None = None) -> Any:
    """The `Accelerator` of a GPU; `handle` as for `Gpu`.

    Raises:
        ConfigError: it cannot be used.
    """
    check_version()
    from acidmpi.arrays.cuda.gpu import Gpu

    return Gpu(index, handle)
