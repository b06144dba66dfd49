"""How ranks are started: by Open MPI, MPICH or Slurm, here or on the hosts of a file."""

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from acidmpi.config.options import did_you_mean
from acidmpi.errors import ConfigError

OPEN_MPI, MPICH, SLURM = "Open MPI", "MPICH", "Slurm"

ONE_MACHINE = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
"""More ranks than cores are welcome where no hosts are given."""

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where ranks run; the fields are the keys of jobs/cluster.toml."""

    hosts: tuple[str, ...] = ()
    python: str = sys.executable
    interface: str = ""
    threads: int | None = None


def read_cluster(path: Path | None) -> Cluster:
    """The cluster that a file describes; without one: this machine."""
    if path is None:
        return Cluster()
    given = read_toml(path)
    refuse_unknown(given, [field.name for field in fields(Cluster)], str(path))
    for name, value in given.items():
        rule, fits = _RULES[name]
        if not fits(value):
            raise ConfigError(f"{path}: {name} must be {rule}, got {value!r}")
    return Cluster(**{**given, "hosts": tuple(given.get("hosts", ()))})


def read_toml(path: Path) -> dict[str, Any]:
    """What a file holds.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _is_list_of_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v for v in value)


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "hosts": ('a list such as ["node1:4", "node2:4"]', _is_list_of_words),
    "python": ("the path of an interpreter", lambda v: isinstance(v, str) and v != ""),
    "interface": ("a name as `ip link` shows it", lambda v: isinstance(v, str)),
    "threads": ("a whole number at least 1", lambda v: type(v) is int and v >= 1),
}
"""What each key of a cluster's file may be."""


def refuse_unknown(given, known, where):
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def launcher(slurm: bool) -> str:
    """Which program starts ranks."""
    if slurm:
        return SLURM
    if shutil.which("mpiexec") is None:
        raise ConfigError(
            "no mpiexec on PATH; activate the environment, or use --slurm"
        )
    version = subprocess.run(
        ["mpiexec", "--version"], capture_output=True, text=True, check=False
    )
    said = (version.stdout + version.stderr).lower()
    return (
        OPEN_MPI if any(n in said for n in ("open mpi", "openrte", "prte")) else MPICH
    )


def command(kind: str, cluster: Cluster, ranks: int, arguments: list[str]) -> list[str]:
    """What to run so that `python arguments…` runs on so many ranks.

    Raises:
        ConfigError: they are to survive deaths, of which this launcher does not tell.
    """
    start = _START[kind](cluster, ranks)
    if "--fault-tolerant" in arguments:
        if kind != OPEN_MPI:
            raise ConfigError(
                f"--fault-tolerant needs Open MPI's mpiexec, ranks are started by {kind}; "
                "leave out --slurm: inside a job mpiexec uses its nodes"
            )
        start[1:1] = ["--with-ft", "ulfm"]
    return [*start, cluster.python, *arguments]


def shown(kind: str, cluster: Cluster, words: list[str]) -> str:
    """A command with its environment, as one would type it."""
    settings = [f"{k}={v}" for k, v in variables(kind, cluster).items()]
    return shlex.join(["env", *settings, *words])


def _open_mpi(cluster: Cluster, ranks: int) -> list[str]:
    found = ["mpiexec", "-n", str(ranks)]
    if cluster.hosts:
        found += ["--host", ",".join(cluster.hosts)]
        # Variables do not travel to other hosts unless they are named.
        names = sorted(n for n in variables(OPEN_MPI, cluster) if "_MCA_" not in n)
        found += [word for name in names for word in ("-x", name)]
    return found


def _mpich(cluster: Cluster, ranks: int) -> list[str]:
    found = ["mpiexec", "-n", str(ranks)]
    if cluster.hosts:
        found += ["-hosts", ",".join(cluster.hosts)]
    if cluster.interface:
        found += ["-iface", cluster.interface]
    return found


def _slurm(cluster: Cluster, ranks: int) -> list[str]:
    # Ranks that are told to leave end with a status of their own, one after the other: the
    # first must not have the others killed. Whoever still runs after two minutes is ended.
    found = ["srun", f"--ntasks={ranks}", "--kill-on-bad-exit=0", "--wait=120"]
    if cluster.hosts:
        names = ",".join(host.partition(":")[0] for host in cluster.hosts)
        found.append(f"--nodelist={names}")
    return found


_START = {OPEN_MPI: _open_mpi, MPICH: _mpich, SLURM: _slurm}


def variables(kind: str, cluster: Cluster) -> dict[str, str]:
    """What the environment of the ranks needs beside what it has."""
    share = os.environ.get("SLURM_CPUS_PER_TASK", "1") if kind == SLURM else "1"
    found = {"OMP_NUM_THREADS": str(cluster.threads or share)}
    if cluster.interface:
        found |= {
            "OMPI_MCA_btl_tcp_if_include": cluster.interface,
            "GLOO_SOCKET_IFNAME": cluster.interface,
        }
    if kind == OPEN_MPI and os.geteuid() == 0:
        found |= AS_ROOT
    if kind == OPEN_MPI and not cluster.hosts:
        found |= {k: v for k, v in ONE_MACHINE.items() if k not in os.environ}
    return found
