"""What MPI library this process runs on."""

from mpi4py import MPI


def mpi_library() -> str:
    """Name and version of the MPI library, on one line."""
    return MPI.Get_library_version().split("\n")[0].split(", package")[0].strip("\0 ")


def world() -> MPI.Comm:
    """The communicator of all ranks that the launcher started, for commands.

    The library itself is always handed a communicator.
    """
    return MPI.COMM_WORLD
