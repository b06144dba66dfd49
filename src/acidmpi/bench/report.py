"""What a benchmark hands back: a table for people, and one JSON object on the last line."""

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from acidmpi.progress import available_cores

LEAST_BANDWIDTH = 0.9
"""Of a kernel, relative to a plain copy."""

MOST_STEP = 0.7
"""Time of a fused step, relative to torch's."""

SCHEMA = 1
"""Version of the JSON object."""

PACKAGES = ("acidmpi", "mpi4py", "numba", "numpy")

SETTINGS = (
    "FI_",
    "MPICH_",
    "MPIR_CVAR_",
    "OMPI_MCA_btl",
    "OMPI_MCA_mtl",
    "OMPI_MCA_pml",
    "OMPI_MCA_smsc",
    "OMP_NUM_THREADS",
    "PRTE_MCA_hwloc",
    "UCX_",
)
"""Beginnings of the names of variables that change how messages travel, or how fast."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    With a rival, bounds are on the ratio to it; without one, on the value itself.
    """

    name: str
    value: float
    unit: str
    rival: float | None = None
    """A limit or a rival in the same unit, measured or computed in the same run."""

    beside: str = ""
    """What the rival is."""

    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def limit(self) -> float | None:
        """The rival, or else the bound."""
        bound = self.at_least if self.at_most is None else self.at_most
        return bound if self.rival is None else self.rival

    @property
    def ratio(self) -> float | None:
        """Value over limit."""
        return self.value / self.limit if self.limit else None

    @property
    def asked(self) -> str:
        """The bound in words, and whether it is met."""
        tried = self.value if self.rival is None else self.ratio
        if self.at_most is None and self.at_least is None:
            return ""
        wanted, met = "", tried is not None
        for sign, bound in (("≤", self.at_most), ("≥", self.at_least)):
            if bound is not None:
                wanted += f"{sign} {bound:g} "
                met = met and _holds(tried, sign, bound)
        return wanted + ("met" if met else "MISSED")

    def described(self) -> dict[str, Any]:
        """As the JSON object has it."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "unit": self.unit,
            "limit": _finite(self.limit),
            "ratio": _finite(self.ratio),
        }


def report(
    benchmark: str, command: Sequence[str], ranks: int, figures: Sequence[Figure]
) -> str:
    """The table and, on the last line, the JSON object."""
    described = {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "command": " ".join(command),
        "commit": commit(),
        "hardware": hardware(ranks),
        "versions": versions(),
        "results": [figure.described() for figure in figures],
    }
    return f"{table(figures)}\n\n{json.dumps(described, allow_nan=False)}"


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns: name, value, rival, ratio, what was asked."""
    rows = [("", "value", "beside", "ratio", "asked", "")]
    rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = (
        "  ".join(
            cell.ljust(width) if column in (0, 2, 4, 5) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def hardware(ranks: int) -> dict[str, Any]:
    """The machine of this rank, and what in the environment steers MPI."""
    settings = {k: v for k, v in os.environ.items() if k.startswith(SETTINGS)}
    return {
        "cpu": _cpu(),
        "cores": available_cores(),
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
        "ranks": ranks,
        "load": round(os.getloadavg()[0], 2),
        "settings": dict(sorted(settings.items())),
        **_gpus(),
    }


def versions() -> dict[str, str]:
    """Python, MPI and the packages of the worker; torch where it was used."""
    found = {"python": platform.python_version()}
    found |= {name: _version(name) for name in PACKAGES}
    if "torch" in sys.modules:
        found["torch"] = _version("torch")
    if "mpi4py.MPI" in sys.modules:
        from acidmpi.mpi.library import mpi_library

        found["mpi_library"] = mpi_library()
    if "cupy" in sys.modules:
        found |= _of_cuda()
    return found


def commit() -> str | None:
    """The commit that the package was imported from; None outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
    folder = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return found.stdout.strip() or None


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    rival = ""
    if figure.rival is not None:
        rival = f"{figure.beside} {_number(figure.rival)}".strip()
    ratio = figure.ratio if figure.rival is not None else None
    return (
        figure.name,
        f"{_number(figure.value)} {figure.unit}".strip(),
        rival,
        "" if ratio is None else f"{ratio:.3g}",
        figure.asked,
        figure.note,
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 or abs(value) > 1e9 else f"{value:,.0f}"


def _holds(tried: float | None, sign: str, bound: float) -> bool:
    assert tried is not None
    return tried <= bound if sign == "≤" else tried >= bound


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _gpus() -> dict[str, Any]:
    """The GPUs that this process sees, if a benchmark has used one."""
    if "cupy" not in sys.modules:
        return {}
    from cupy.cuda import runtime

    every = [runtime.getDeviceProperties(k) for k in range(runtime.getDeviceCount())]
    return {"gpus": [properties["name"].decode() for properties in every]}


def _of_cuda() -> dict[str, str]:
    """CuPy, the CUDA it was built for, and the newest that the driver knows."""
    import cupy
    from cupy.cuda import runtime

    return {
        "cupy": cupy.__version__,
        "cuda": _cuda_version(runtime.runtimeGetVersion()),
        "cuda_of_driver": _cuda_version(runtime.driverGetVersion()),
    }


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _cpu() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor()


def _memory_bytes() -> int | None:
    kilobytes = _field(Path("/proc/meminfo"), "MemTotal").removesuffix(" kB")
    return int(kilobytes) << 10 if kilobytes.isdecimal() else None


def _field(path: Path, name: str) -> str:
    """The first value of `name` in a file of `name : value` lines, or nothing."""
    if not path.exists():
        return ""
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return next((v.strip() for k, _, v in pairs if k.strip() == name), "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def from_kernels(results: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Figures from the `name, value, unit, limit` of kernels, with their bounds."""
    return [
        Figure(
            name=r["name"],
            value=r["value"],
            unit=r["unit"],
            rival=r["limit"],
            beside="copyto" if _bandwidth(r) else "",
            at_least=LEAST_BANDWIDTH if _bandwidth(r) else None,
            at_most=MOST_STEP if r["name"].endswith("beside torch") else None,
        )
        for r in results
    ]


def _bandwidth(result: Mapping[str, Any]) -> bool:
    return bool(result["unit"] == "GB/s")
