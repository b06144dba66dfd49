"""Single operations on tensors, optimizers and objects over all ranks.

Every function is collective: all ranks of `comm` call it, in the same order. Messages go
over the caller's communicator; averagers have their own. Waits end with `DeadlineExceeded`.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor
from torch.optim import Optimizer

from acidmpi.arrays.torch.views import as_array
from acidmpi.compression.protocol import Array
from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import agreeing, check_same, complete, confessing
from acidmpi.parallel.torch.checkpoints import KEY

MOST_BYTES = 1 << 30
"""More travels in several messages: MPI counts up to 2^31."""

Parameters = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


def broadcast_parameters(
    params: Parameters, comm: MPI.Comm, root: int = 0, deadline_seconds: float = 300.0
) -> None:
    """Copy the tensors of rank `root` into those of all ranks, in place.

    Args:
        params: `model.state_dict()`, which has buffers too, `model.named_parameters()`,
            or a dictionary.
        comm: an mpi4py communicator.
        root: whose tensors count.
        deadline_seconds: how long other ranks may keep this one waiting.

    Raises:
        DisagreementError: ranks differ in names, shapes, types or the root.
        ConfigError: something is not a tensor on the CPU or a CUDA device.
    """
    with confessing(comm, deadline_seconds):
        named = _named(params)
        _check_root(comm, root)
        told = {n: _describe(n, t) for n, t in named.items()} | {"the root": str(root)}
    check_same(comm, told, deadline_seconds)
    for name, tensor in named.items():
        # A single element may have any stride, which view() minds.
        flat = _plain(tensor).cpu().contiguous().as_strided((tensor.numel(),), (1,))
        what = f"the broadcast of {name!r}"
        _broadcast(comm, flat.view(torch.uint8).numpy(), root, deadline_seconds, what)
        if flat.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(flat.view(tensor.shape))


def broadcast_optimizer_state(
    optimizer: Optimizer,
    comm: MPI.Comm,
    root: int = 0,
    deadline_seconds: float = 300.0,
) -> None:
    """Give every rank the state and the options of rank `root`'s optimizer.

    Other ranks' optimizers need no state yet. What a compressor remembers stays as it is:
    residuals differ between ranks.

    Args:
        optimizer: any torch optimizer, wrapped or not.
        comm: an mpi4py communicator.
        root: whose state counts.
        deadline_seconds: how long other ranks may keep this one waiting.

    Raises:
        ConfigError: optimizers differ in groups, which ranks other than `root` notice.
        DisagreementError: ranks name different roots.
    """
    state = _broadcast_made(lambda: _own_state(optimizer), comm, root, deadline_seconds)
    if comm.rank != root:
        try:
            optimizer.load_state_dict(state)
        except ValueError as error:
            raise ConfigError(
                f"optimizers must have equal groups, got another one from rank {root}: "
                f"{error}; build it in the same way on every rank"
            ) from error
        _keep_types(optimizer, state)


def broadcast_object(
    obj: Any, comm: MPI.Comm, root: int = 0, deadline_seconds: float = 300.0
) -> Any:
    """Rank `root`'s object on every rank, by way of pickle; others' are ignored.

    Raises:
        DisagreementError: ranks name different roots.
        Exception: on `root`, what pickle raised; `RemoteError` with it on the others.
    """
    return _broadcast_made(lambda: obj, comm, root, deadline_seconds)


def allreduce(
    tensor: Tensor,
    comm: MPI.Comm,
    op: Literal["mean", "sum"] = "mean",
    deadline_seconds: float = 300.0,
) -> Tensor:
    """A new tensor with the mean or the sum over ranks.

    Numbers of 16 bits are added as float32 and rounded once.

    Args:
        tensor: of the same shape and type on every rank, on the CPU or a CUDA device.
        comm: an mpi4py communicator.
        op: `mean`, of floating-point tensors only, or `sum`.
        deadline_seconds: how long other ranks may keep this one waiting.

    Raises:
        ConfigError: another operation, a mean of integers, a tensor that is elsewhere,
            or of a type or layout that MPI cannot add.
        DisagreementError: ranks differ in shape, type or operation.
    """
    with confessing(comm, deadline_seconds):
        told = f"{op} of {_describe('the tensor', tensor)}"
        _check_addable(tensor, op)
    check_same(comm, {"the allreduce": told}, deadline_seconds)
    wide = torch.float32 if _is_narrow(tensor) else tensor.dtype
    total = tensor.detach().to("cpu", wide, copy=True).contiguous()
    _sum(comm, as_array(total.view(-1)), deadline_seconds)
    if op == "mean":
        total /= comm.size
    return total.to(tensor.device, tensor.dtype)


def _named(params: Any) -> dict[str, Tensor]:
    """Tensors by name; two of one name would hide each other."""
    pairs = params.items() if isinstance(params, Mapping) else params
    pairs = list(pairs) if isinstance(pairs, Iterable) else [pairs]
    for pair in pairs:
        if not (
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        ):
            raise ConfigError(
                "parameters to broadcast must be a dictionary or pairs of a name and a "
                f"tensor, got {type(pair).__name__}; pass model.state_dict()"
            )
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ConfigError(
            f"names of parameters must be unique, got two called {twice!r}; broadcast "
            "each of several models by a call of its own"
        )
    return named


def _plain(tensor: Tensor) -> Tensor:
    """What `conj()` or `imag` only noted is calculated."""
    return tensor.detach().resolve_conj().resolve_neg()


def _broadcast_made(
    make: Callable[[], Any], comm: MPI.Comm, root: int, seconds: float
) -> Any:
    """What `make` makes on rank `root`, on every rank."""
    made, data = None, np.zeros(0, np.uint8)
    with agreeing(comm, seconds):
        _check_root(comm, root)
        if comm.rank == root:
            made = make()
            data = np.frombuffer(bytearray(pickle.dumps(made)), np.uint8)
    check_same(comm, {"the root": str(root)}, seconds)
    size = np.array([data.size], np.int64)
    what = "the broadcast of an object"
    _broadcast(comm, size.view(np.uint8), root, seconds, what)
    if comm.rank != root:
        data = np.empty(int(size[0]), np.uint8)
    _broadcast(comm, data, root, seconds, what)
    return made if comm.rank == root else pickle.loads(data.tobytes())


def _own_state(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's own part; each tensor with memory of its own, or pickle takes all."""
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"the optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    state = optimizer.state_dict()
    state.pop(KEY, None)
    held = state["state"].items()
    return state | {"state": {key: _cloned(values) for key, values in held}}


def _keep_types(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Undo what `load_state_dict` rounds to the type of a parameter: `root` has not."""
    numbers = [n for group in state["param_groups"] for n in group["params"]]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in zip(numbers, held, strict=True):
        for name, value in state["state"].get(number, {}).items():
            mine = optimizer.state[parameter]
            if isinstance(value, Tensor) and mine[name].dtype is not value.dtype:
                mine[name] = value.to(mine[name].device)


def _cloned(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {
        name: value.detach().to("cpu", copy=True)
        if isinstance(value, Tensor)
        else value
        for name, value in values.items()
    }


def _check_addable(tensor: Tensor, op: str) -> None:
    if op not in ("mean", "sum"):
        raise ConfigError(f"op must be 'mean' or 'sum', got {op!r}")
    if op == "mean" and not (tensor.is_floating_point() or tensor.is_complex()):
        raise ConfigError(
            f"a mean needs a floating-point tensor, got {tensor.dtype}; use op='sum'"
        )
    dtype = tensor.dtype
    short = (tensor.is_floating_point() or tensor.is_complex()) and dtype.itemsize < 8
    known = not short or dtype in (torch.float32, torch.float16, torch.bfloat16)
    if dtype is torch.bool or not known or tensor.layout is not torch.strided:
        raise ConfigError(
            f"a sum needs a dense tensor of a type that MPI adds, got {tensor.layout} of "
            f"{dtype}; call to_dense(), or convert it to torch.int64 or torch.float32"
        )


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize == 2


def _sum(comm: MPI.Comm, array: Array, seconds: float) -> None:
    length = MOST_BYTES // array.itemsize
    for start in range(0, array.size, length):
        part = array[start : start + length]
        request = comm.Iallreduce(MPI.IN_PLACE, part, op=MPI.SUM)
        complete(request, seconds, "the sum of a tensor")


def _broadcast(
    comm: MPI.Comm, data: Array, root: int, seconds: float, what: str
) -> None:
    for start in range(0, data.size, MOST_BYTES):
        part = data[start : start + MOST_BYTES]
        complete(comm.Ibcast([part, MPI.BYTE], root=root), seconds, what)


def _check_root(comm: MPI.Comm, root: int) -> None:
    if not hasattr(root, "__index__") or not 0 <= root < comm.size:
        raise ConfigError(
            f"root must be a rank of the communicator, 0 to {comm.size - 1}, got {root!r}"
        )


def _describe(name: str, tensor: Tensor) -> str:
    if not isinstance(tensor, Tensor) or tensor.device.type not in ("cpu", "cuda"):
        where = getattr(tensor, "device", type(tensor).__name__)
        raise ConfigError(
            f"{name!r} must be a tensor on the CPU or a CUDA device, got {where}"
        )
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
