"""Where a rank's arrays are, and what follows from it: kernels, transport, chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from acidmpi.arrays.accelerator import Accelerator, accelerator_of, here
from acidmpi.arrays.device_site import DeviceSite
from acidmpi.arrays.site import HOST, Site
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.kernels.hyper import Add
from acidmpi.kernels.protocol import Kernels
from acidmpi.mpi.collectives import agreeing
from acidmpi.mpi.library import mpi_library
from acidmpi.mpi.nodes import Node
from acidmpi.mpi.reductions import Comm
from acidmpi.transport.device import DeviceTransport
from acidmpi.transport.host import HostTransport
from acidmpi.transport.pieces import Longest, longest_message, whole
from acidmpi.transport.staged import StagedTransport
from acidmpi.worker.exchange import DEPTH
from acidmpi.worker.options import WorkerOptions

Array = NDArray[Any]

DEVICE_DEPTH = 4
"""A chunk is copied, sent, copied back and applied: one in each of these."""

SMALLEST_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Place:
    """Host memory, or one device."""

    accelerator: Accelerator | None
    """The device."""

    kernels: Kernels
    transport: str
    """Name of the way in which chunks travel."""

    chunk_bytes: int
    depth: int
    """Most chunks in flight."""

    def site(self) -> Site:
        """Where turns are taken; what is queued on the caller's stream comes first."""
        return HOST if self.accelerator is None else DeviceSite(self.accelerator)

    longest: Longest = whole
    """Bytes of the longest message from host memory."""

    def make_transport(self, comm: Any, site: Site) -> Any:
        """What moves chunks, on a communicator of its own."""
        if not isinstance(site, DeviceSite):
            return HostTransport(comm, self.longest)
        if self.transport == "device":
            return DeviceTransport(HostTransport(comm), site.accelerator, site.stream)
        messages = HostTransport(comm, self.longest)
        return StagedTransport(messages, site.accelerator, site.stream)


def find_place(
    comm: Comm,
    node: Node,
    options: WorkerOptions,
    arrays: Sequence[Array],
    rules: Sequence[Any],
) -> Place:
    """Choose the transport and compile the kernels (collective).

    Raises:
        ConfigError: the transport asked for does not fit the memory, or does not work.
    """
    accelerator = accelerator_of(arrays)
    if accelerator is None:
        with agreeing(comm, options.deadline_seconds):
            check_host(options)
        kernels, name = load("cpu"), "host"
        chunk_bytes, depth = options.chunk_bytes, DEPTH
    else:
        with agreeing(comm, options.deadline_seconds):
            check_device(options)
            with here(accelerator):
                kernels = load("cuda")
        name = _transport(comm, options, accelerator)
        depth = DEVICE_DEPTH
        chunk_bytes = max(SMALLEST_CHUNK_BYTES, options.staging_bytes // (2 * depth))
    longest = longest_message(options.message_bytes, node, mpi_library())
    place = Place(accelerator, kernels, name, chunk_bytes, depth, longest)
    _warm(comm, node, options, arrays, rules, place)
    return place


def check_host(options: WorkerOptions) -> None:
    """Raise `ConfigError` where a device was asked for and the arrays are the host's."""
    if options.device == "cuda":
        raise ConfigError(
            "device cuda needs parameters in the memory of a GPU, got them in the "
            "host's; call model.to('cuda') before the worker is made, or pass a CuPy array"
        )
    if options.transport in ("device", "staged"):
        raise ConfigError(
            f"transport {options.transport} is for parameters in the memory of a GPU, "
            "got them in the host's; take transport host or auto, or device cuda"
        )


def check_device(options: WorkerOptions) -> None:
    """Raise `ConfigError` where the host was asked for and the arrays are a device's."""
    if options.device == "cpu" or options.transport == "host":
        asked = "device cpu" if options.device == "cpu" else "transport host"
        raise ConfigError(
            f"{asked} needs parameters in host memory, got them in the memory of a GPU; "
            "leave it out, or call model.to('cpu') before the worker is made"
        )


def _transport(comm: Comm, options: WorkerOptions, accelerator: Accelerator) -> str:
    from acidmpi.transport.choice import choose

    asked: Any = options.transport
    index = getattr(accelerator, "index", 0)
    choice = choose(asked, comm, device=index)
    if comm.rank == 0 and asked == "auto":
        _tell(choice.name, choice.reason)
    return choice.name


def _tell(name: str, reason: str) -> None:
    """Say it once, where whoever started the run looks."""
    import logging

    logging.getLogger("acidmpi").warning("acidmpi: transport %s: %s", name, reason)


def _warm(
    comm: Comm,
    node: Node,
    options: WorkerOptions,
    arrays: Sequence[Array],
    rules: Sequence[Any],
    place: Place,
) -> None:
    """Compile on one rank of each node first, so that the others find it on disk."""
    dtypes = sorted({x.dtype for x in arrays}, key=str)
    every = [*rules, Add()]
    for turn in (True, False):
        with agreeing(comm, options.deadline_seconds), here(place.accelerator):
            if turn == (node.local_rank == 0):
                tilde = options.method == "a2cid2"
                place.kernels.warm(dtypes, every, x_tilde=tilde)
