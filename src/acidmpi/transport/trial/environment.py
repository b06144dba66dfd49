"""Variables for a process that is no part of the job that starts it.

A launcher tells its ranks through variables who they are. A child that inherits them would
pose as the same rank, and two libraries treat that as an error or wait for ever.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import acidmpi.errors as _of_this_package

OF_LAUNCHERS = (
    "ALPS_",
    "FLUX_",
    "HYDI_",
    "HYD_",
    "JSM_",
    "LSB_",
    "LSF_",
    "MPIEXEC_",
    "MPI_LOCAL",
    "OMPI_",
    "PALS_",
    "PBS_",
    "PMIX_",
    "PMI_",
    "PRTE_",
    "SLURM",
)
"""Beginnings of names. Settings are among them, see `KEPT`."""

KEPT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_", "PMIX_MCA_", "PRTE_MCA_")
"""How messages travel must be as in the job."""

OF_ONE_RANK = (
    "OMPI_MCA_PREFIXES",
    "OMPI_MCA_cpu_type",
    "OMPI_MCA_initial_wdir",
    "OMPI_MCA_num_procs",
)
"""Looks like a setting, but describes the rank."""

FOR_TWO_RANKS = {
    "HYDRA_LAUNCHER": "fork",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "PRTE_MCA_plm": "ssh",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
"""On this machine, on whatever cores there are, without the site's job manager."""


def outside_of_the_job(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables without those of a launcher, with what two ranks on one machine need.

    Args:
        variables: those of a rank.
    """
    kept = {k: v for k, v in variables.items() if not _of_a_launcher(k)}
    if os.geteuid() == 0:
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    folders = [_folder_of_the_package(), kept.get("PYTHONPATH", "")]
    path = os.pathsep.join(folder for folder in folders if folder)
    return kept | FOR_TWO_RANKS | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _of_a_launcher(name: str) -> bool:
    if name in OF_ONE_RANK:
        return True
    return name.startswith(OF_LAUNCHERS) and not name.startswith(KEPT)


def _folder_of_the_package() -> str:
    assert _of_this_package.__file__ is not None
    return str(Path(_of_this_package.__file__).parents[1])
