"""What MPI library this process runs on."""

from mpi4py import MPI


def mpi_library() -> str:
    """Name and version of the MPI library, on one line."""
    return MPI.Get_library_version().split("\n")[0].split(", package")[0].strip("\0 ")
