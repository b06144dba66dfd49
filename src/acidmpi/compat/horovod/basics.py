"""Starting, ending, and who is who: the part of Horovod that needs no tensors."""

from enum import IntEnum
from typing import Any

from acidmpi.compat.session import Holder, Session
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import AcidError, ConfigError
from acidmpi.mpi.reductions import Comm
from acidmpi.mpi.threads import thread_level
from acidmpi.mpi.world import world

HOLDER = Holder("acidmpi.compat.horovod", lazy=False)
"""The session between `init` and `shutdown`."""

HorovodInternalError = AcidError
"""What goes wrong in an operation: every error of acidmpi."""


class ReduceOp(IntEnum):
    """How values of ranks become one; the numbers are Horovod's."""

    Average = 0
    Sum = 1
    Adasum = 2
    Min = 3
    Max = 4
    Product = 5


Average = ReduceOp.Average
Sum = ReduceOp.Sum
Adasum = ReduceOp.Adasum
Min = ReduceOp.Min
Max = ReduceOp.Max
Product = ReduceOp.Product


def session() -> Session:
    """What `init` opened.

    Raises:
        ConfigError: `init` has not been called.
    """
    return HOLDER.session


def init(comm: Any = None, process_sets: Any = None) -> None:
    """Begin on all ranks of `comm`; collective. Nothing happens the second time.

    Args:
        comm: an mpi4py communicator, which is duplicated; None or an empty list, for all
            ranks of MPI_COMM_WORLD; or a list of all these ranks.
        process_sets: must be None or empty.

    Raises:
        UnsupportedError: a list of some ranks only, or process sets.
        ConfigError: `comm` is something else.
    """
    if process_sets:
        raise UnsupportedError(
            "init(process_sets=…)", "split a communicator and pass it as comm"
        )
    HOLDER.init(_communicator(comm))


def shutdown() -> None:
    """Close optimizers and communicators; collective. MPI is left to mpi4py.

    It is called when the process exits, too; afterwards `init` may be called again.
    """
    HOLDER.shutdown()


def is_initialized() -> bool:
    """Whether `init` has been called."""
    return HOLDER.open


def rank() -> int:
    """Number of this process."""
    return session().rank


def size() -> int:
    """How many processes there are."""
    return session().size


def local_rank() -> int:
    """Number of this process on its machine."""
    return session().place.local_rank


def local_size() -> int:
    """Processes on this machine."""
    return session().place.local_size


def cross_rank() -> int:
    """Number of this machine among those that have a process of this `local_rank`."""
    return session().place.cross_rank


def cross_size() -> int:
    """Machines that have a process of this `local_rank`."""
    return session().place.cross_size


def is_homogeneous() -> bool:
    """Whether all machines have the same number of processes."""
    return session().place.homogeneous


def mpi_threads_supported() -> bool:
    """Whether MPI may be called from several threads at once."""
    session()
    return thread_level() == "MPI_THREAD_MULTIPLE"


def mpi_enabled() -> bool:
    """True: messages always travel by MPI."""
    return True


def mpi_built() -> bool:
    """True: messages always travel by MPI."""
    return True


def gloo_enabled() -> bool:
    """False: there is no Gloo here."""
    return False


def gloo_built() -> bool:
    """False: there is no Gloo here."""
    return False


def nccl_built() -> int:
    """0, for no version of NCCL: there is none here."""
    return 0


def ddl_built() -> bool:
    """False: there is no DDL here."""
    return False


def ccl_built() -> bool:
    """False: there is no oneCCL here."""
    return False


def cuda_built() -> bool:
    """False: tensors on a GPU are staged through the host."""
    return False


def rocm_built() -> bool:
    """False: there is no ROCm here."""
    return False


def _communicator(comm: Any) -> Comm | None:
    if comm is None or isinstance(comm, Comm):
        return comm
    if not isinstance(comm, list | tuple | range):
        raise ConfigError(
            "comm of init() must be None, a list of ranks or an mpi4py communicator, "
            f"got {comm!r}; pass mpi4py.MPI.COMM_WORLD"
        )
    if comm and sorted(comm) != list(range(world().size)):
        raise UnsupportedError(
            f"init() with some ranks only, {list(comm)},",
            "split a communicator: MPI.COMM_WORLD.Split(colour), and pass it as comm",
        )
    return None
