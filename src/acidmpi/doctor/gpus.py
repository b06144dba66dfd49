"""GPUs, what CuPy and MPI can do with them, and how fast memory is copied."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from mpi4py import MPI

from acidmpi.doctor.findings import Finding, State
from acidmpi.doctor.messages import ucx_transports
from acidmpi.doctor.options import DoctorOptions
from acidmpi.doctor.software import OF_GPU, version
from acidmpi.errors import AcidError
from acidmpi.mpi.collectives import broadcast
from acidmpi.transport.awareness import claims
from acidmpi.transport.trial.driver import Driver, GpuDevice, NoDevice
from acidmpi.transport.trial.parent import Verdict, trial

CURE_DEVICE = (
    "take an MPI that is built with CUDA, or a UCX with CUDA transports "
    "(docs/cuda_aware_mpi.md); --transport staged works with every MPI"
)
ROUNDS = 5


def devices(options: DoctorOptions) -> tuple[list[GpuDevice], list[Finding]]:
    """The GPUs that this process sees, and what is to be said of them."""
    try:
        driver = Driver()
        found = driver.devices()
    except NoDevice as error:
        return [], [_none(str(error), options)]
    if not found:
        return [], [_none("the driver sees none", options)]
    lines = [Finding("gpu", "driver", f"knows CUDA {driver.version}")]
    lines += [_device(number, one) for number, one in enumerate(found)]
    return found, lines


def _none(why: str, options: DoctorOptions) -> Finding:
    asked = options.device == "cuda" or options.transport in ("device", "staged")
    state: State = "bad" if asked else "plain"
    cure = "run where nvidia-smi lists a GPU, or take --device cpu"
    return Finding("gpu", "devices", f"none ({why})", state, cure)


def _device(number: int, one: GpuDevice) -> Finding:
    capability = ".".join(map(str, one.capability))
    told = f"{one.name}, {one.memory_bytes / 2**30:.0f} GiB, {capability}, {one.uuid}"
    return Finding("gpu", f"device {number}", told)


def cupy_state(options: DoctorOptions) -> Iterator[Finding]:
    """Whether kernels can be compiled and run, and how fast memory is copied."""
    state: State = "bad" if options.device == "cuda" else "advice"
    installed = [name for name in OF_GPU if name.startswith("cupy") and version(name)]
    try:
        yield from _at_work(_checked_cupy(), options.size_bytes)
    except ImportError as error:
        cure = "pip install 'acidmpi[cuda13]', or [cuda12] for a driver before CUDA 13"
        yield Finding("gpu", "cupy", f"cannot be imported ({error})", state, cure)
    except (AcidError, RuntimeError, OSError) as error:
        cure = (
            f"{' and '.join(installed) or 'CuPy'} and the driver must go together: "
            "take cupy-cuda12x for CUDA 12, cupy-cuda13x for CUDA 13, one of them only"
        )
        yield Finding("gpu", "cupy", f"does not work ({error})", state, cure)


def _checked_cupy() -> Any:
    """CuPy, after one kernel of ours has run and was right."""
    import cupy

    from acidmpi.kernels import load

    x = cupy.arange(1000, dtype="float32")
    out = cupy.empty_like(x)
    load("cuda").snapshot(x, x + 2.0, out, 0.5)
    if not bool((out == x + 1.0).all()):
        raise RuntimeError("a kernel gave wrong numbers")
    return cupy


def _at_work(cupy: Any, size: int) -> Iterator[Finding]:
    yield Finding(
        "gpu", "cupy", f"{cupy.__version__}, a kernel ran and was right", "good"
    )
    count = -(-size // 4)
    # Drawn numbers would need cuRAND, which nothing else here does.
    first, second = (cupy.arange(count, dtype="float32") for _ in range(2))
    room = cupy.cuda.alloc_pinned_memory(size)  # owns what `host` points to
    host = ctypes.c_void_p(room.ptr)
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "copy in the GPU's memory": (
            2,
            lambda: first.data.copy_from_device_async(second.data, size),
        ),
        "to page-locked memory": (
            1,
            lambda: first.data.copy_to_host_async(host, size),
        ),
        "from page-locked memory": (
            1,
            lambda: first.data.copy_from_host_async(host, size),
        ),
    }
    for name, (factor, copy) in ways.items():
        seconds = min(_timed(cupy, copy) for _ in range(ROUNDS))
        told = f"{factor * size / seconds * 1e-9:.1f} GB/s"
        yield Finding("bandwidth", name, told)


def _timed(cupy: Any, copy: Callable[[], object]) -> float:
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    copy()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) * 1e-3


def device_messages(
    comm: MPI.Comm, options: DoctorOptions, found: list[GpuDevice]
) -> Iterator[Finding]:
    """Whether MPI sends from device memory: what it says, and a trial; collective."""
    for claim in claims(comm):
        yield Finding("transports", f"{claim.source} says", claim.text)
    asked = options.transport == "device"
    if not found and not asked:
        return
    verdict = _tried(comm, options)
    state: State = "good" if verdict.moved else "bad" if asked else "advice"
    yield Finding("transports", "device", verdict.text, state, CURE_DEVICE)
    taken = ucx_transports(verdict.output)
    if taken:
        yield Finding("transports", "UCX takes for it", taken)


def _tried(comm: MPI.Comm, options: DoctorOptions) -> Verdict:
    """The trial of rank 0, on all ranks."""
    verdict = None
    if comm.rank == 0:
        variables = {"UCX_LOG_LEVEL": "info"}
        verdict = trial("cuda", 0, options.deadline_seconds, variables=variables)
    patience = 2 * options.deadline_seconds
    shared: Verdict = broadcast(comm, verdict, patience, "the trial of device memory")
    return shared
