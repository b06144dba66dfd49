"""The API of the `acpsgd` package, over MPI.

`import acidmpi.compat.acpsgd as acpsgd` in place of `import acpsgd`. Processes are those of
MPI_COMM_WORLD, whether `init` is called or not. What `rank` means is the foreign API's: the
function is the number of this process, the argument is the width of low-rank factors.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from acidmpi.compat import state
from acidmpi.compat.operations import Work, agreed, told
from acidmpi.compat.session import Holder
from acidmpi.compat.tensors import check_plain, like, numbers
from acidmpi.compression.registry import make
from acidmpi.errors import ConfigError
from acidmpi.mpi.world import start_reduction
from acidmpi.parallel.torch import optimizer as own_optimizer

THRESHOLD = 25
"""Size of a message before compression, in MiB."""

HOLDER = Holder("acidmpi.compat.acpsgd", lazy=True)
"""The session, opened by the first call."""


def init() -> None:
    """Begin on all ranks of MPI_COMM_WORLD; collective. Other functions do it, too."""
    HOLDER.init(None)


def rank() -> int:
    """Number of this process."""
    return HOLDER.session.rank


def size() -> int:
    """How many processes there are."""
    return HOLDER.session.size


def DistributedOptimizer(
    optimizer: Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]] | None = None,
    rank: int = 4,
    threshold: float = THRESHOLD,
) -> own_optimizer.DistributedOptimizer:
    """Wrap an optimizer so that it averages gradients by ACP-SGD; collective.

    Parameters of more than one dimension are compressed, as `acidmpi.ACPSGD` does.

    Args:
        optimizer: any torch optimizer.
        named_parameters: pairs of a name and a parameter, for all that it holds.
        rank: width of the low-rank factors.
        threshold: size of messages before compression, in MiB; 0: one per parameter.

    Returns:
        An `acidmpi.DistributedOptimizer`, of a class derived from that of `optimizer`.

    Raises:
        ConfigError: `rank` or `threshold` makes no sense.
    """
    mebibytes = _checked(threshold)
    here = HOLDER.session
    here.meet("DistributedOptimizer")
    wrapped = own_optimizer.DistributedOptimizer(
        optimizer,
        named_parameters,
        comm=here.comm,
        compression=make("acpsgd", matrix_rank=rank),
        bucket_bytes=int(mebibytes * 2**20),
        progress=here.progress,
        deadline_seconds=here.seconds,
    )
    here.optimizers.append(wrapped)
    return wrapped


def broadcast_parameters(params: state.Parameters, root_rank: int) -> None:
    """Copy rank `root_rank`'s tensors into everyone's; collective.

    Args:
        params: `model.state_dict()`, `model.named_parameters()` or `model.parameters()`.
        root_rank: whose values count.
    """
    state.broadcast_parameters(params, root_rank, HOLDER.session)


def broadcast_optimizer_state(optimizer: Optimizer, root_rank: int) -> None:
    """Give everyone the state and options of rank `root_rank`'s optimizer; collective.

    Args:
        optimizer: any torch optimizer, wrapped or not.
        root_rank: whose state counts.
    """
    state.broadcast_optimizer_state(optimizer, root_rank, HOLDER.session)


def allreduce(tensor: Tensor, name: str | None = None) -> Tensor:
    """Replace `tensor` by the sum over ranks, and return the mean; collective.

    Args:
        tensor: of the same shape and type on all ranks.
        name: ignored.
    """
    del name
    operations = HOLDER.session.operations
    work = told(operations.comm, "allreduce", _summed(tensor), operations.seconds)
    operations.run("allreduce", work)
    return tensor / size()


def _checked(threshold: Any) -> float:
    if not isinstance(threshold, Real) or not 0 <= float(threshold) < math.inf:
        raise ConfigError(
            f"threshold must be a number of MiB, 0 or more, got {threshold!r}; 25 is usual"
        )
    return float(threshold)


def _summed(tensor: Tensor) -> Work:
    operations = HOLDER.session.operations
    check_plain("allreduce", tensor)
    what = f"allreduce of {tensor.dtype} {tuple(tensor.shape)}"
    mine = numbers(tensor)
    yield from agreed(operations.comm, what, 0, operations.seconds)
    total = mine.copy()
    yield start_reduction(operations.comm, mine, total, "sum")
    with torch.no_grad():
        tensor.copy_(like(total, tensor))
