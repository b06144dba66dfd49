"""One complete exchange of a vector in device memory, beside what its parts allow.

- `device`: beside bare messages of the same bytes, `Isend` and `Irecv` from device memory;
  where both ranks share a GPU, also beside the time in which a plain copy moves as many
  bytes as the exchange has to read and write.
- `staged`: beside the slower of its two halves, copies over the bus in both directions at
  once and the message between page-locked buffers of the host; pipelined, they overlap.

Each figure is a speed: bytes of the vector, each way, over the time until both ranks have
applied everything.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.arrays.accelerator import Accelerator, Event, address_of, store
from acidmpi.arrays.device_site import DeviceSite
from acidmpi.bench.exchange import RING_16
from acidmpi.bench.gpu_options import GpuExchangeOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.timing import interleaved
from acidmpi.clocks import WallClock
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.kernels.protocol import Kernels
from acidmpi.mpi.communicators import Communicators
from acidmpi.mpi.nodes import find_node
from acidmpi.progress import Deadline
from acidmpi.transport.choice import Choice, choose
from acidmpi.transport.device import DeviceTransport
from acidmpi.transport.host import HostTransport
from acidmpi.transport.staged import StagedTransport
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.state import RankState
from acidmpi.worker.units import WallUnits

OWN_GPU, SHARED_GPU, STAGED = 0.9, 0.8, 0.9
"""What is asked of an exchange, of the speed beside it."""

PASSES = 3 + 2 + 6
"""Arrays that one rank's part reads or writes: snapshot, message, jump; with x̃."""

DEPTH = 4
"""Chunks in flight, as the worker has them on a device."""

TAG = 2


def run(options: GpuExchangeOptions, comm: MPI.Comm) -> list[Figure]:
    """Time the exchanges and what stands beside them, in turn."""
    if comm.size != 2:
        raise ConfigError(f"an exchange is one of 2 ranks, got {comm.size}")
    accelerator, index = _gpu(comm, options.deadline_seconds)
    choice = choose(options.transport, comm, device=index)
    if comm.rank == 0:
        print(f"acidmpi: {choice.name}: {choice.reason}", file=sys.stderr, flush=True)
    return measure(options, comm, accelerator, load("cuda"), choice)


def _gpu(comm: MPI.Comm, seconds: float) -> tuple[Accelerator, int]:
    from acidmpi.arrays.cuda.choice import choose_device, make_gpu

    index = choose_device("cuda", find_node(comm, seconds).local_rank)
    assert index is not None
    return make_gpu(index), index


def measure(
    options: GpuExchangeOptions,
    comm: MPI.Comm,
    accelerator: Accelerator,
    kernels: Kernels,
    choice: Choice,
) -> list[Figure]:
    """The figures on a device; tests have one without a GPU.

    Args:
        options: what to exchange.
        comm: two ranks.
        accelerator: the device.
        kernels: the backend for its memory.
        choice: whether MPI may be given device memory.
    """
    comms = Communicators.open(comm, options.deadline_seconds, ["data"])
    pair = Pair(options, comms.data, accelerator, kernels)
    ways: dict[str, Callable[[], None]] = {
        "staged": pair.staged,
        "bus": pair.bus,
        "host message": pair.host_message,
        "copy": pair.copy,
    }
    if choice.name == "device":
        ways |= {"device": pair.device, "device message": pair.device_message}
    seconds = interleaved(comm, ways, options.rounds, lambda _: pair.rest())
    shared = len(set(comm.allgather(accelerator.uuid))) == 1
    comms.close()
    return _figures(seconds, pair.bytes_each_way, shared, options)


class Pair:
    """One end of the exchanges.

    Args:
        options: what to exchange.
        comm: two ranks, and nobody else communicates.
        accelerator: the device.
        kernels: the backend for its memory.
    """

    def __init__(
        self,
        options: GpuExchangeOptions,
        comm: MPI.Comm,
        accelerator: Accelerator,
        kernels: Kernels,
    ) -> None:
        self._comm, self._peer, self._accelerator = comm, 1 - comm.rank, accelerator
        self._deadline_seconds = options.deadline_seconds
        values = np.random.default_rng(comm.rank).standard_normal(
            options.size, "float32"
        )
        self.bytes_each_way = values.nbytes
        with accelerator.on(accelerator.caller()):
            arrays = [accelerator.empty(options.size, "float32") for _ in range(3)]
            for array in arrays:
                store(array, values)
        x, self._sent, self._received = arrays
        self._site = DeviceSite(accelerator)
        units = WallUnits(WallClock(), 1.0)
        self._state = RankState([x], kernels, units, True, site=self._site)
        self._state.set_eta(RING_16.eta)
        self._rooms = [accelerator.pinned(values.nbytes) for _ in range(2)]
        for room in self._rooms:
            room[:] = values.view(np.uint8)
        self._streams = accelerator.stream(), accelerator.stream()
        self._messages = HostTransport(comm)
        device = accelerator, self._site.stream
        self._staged = self._exchanger(
            StagedTransport(self._messages, *device), options
        )
        self._device = self._exchanger(
            DeviceTransport(self._messages, *device), options
        )

    def _exchanger(self, transport: Any, options: GpuExchangeOptions) -> Exchanger:
        return Exchanger(
            self._state,
            transport,
            options.chunk_bytes,
            WallClock(),
            options.deadline_seconds,
            options.deadline_seconds,
            depth=DEPTH,
        )

    def rest(self) -> None:
        """Mix to the present, as after a gradient, and let the device finish."""
        self._state.flush()
        self._finish(self._site.stream)

    def staged(self) -> None:
        """The worker's exchange through host memory."""
        self._exchange(self._staged)

    def device(self) -> None:
        """The worker's exchange, MPI being given device memory."""
        self._exchange(self._device)

    def _exchange(self, exchanger: Exchanger) -> None:
        _, alpha, alpha_tilde = RING_16
        for _ in exchanger.exchange(Terms(self._peer, alpha, alpha_tilde)):
            pass
        self._finish(self._site.stream)

    def device_message(self) -> None:
        """Only the bytes, from and to device memory."""
        send, receive = (
            MPI.buffer.fromaddress(address_of(array), array.nbytes)
            for array in (self._sent, self._received)
        )
        requests = [
            self._comm.Irecv([receive, MPI.BYTE], self._peer, TAG),
            self._comm.Isend([send, MPI.BYTE], self._peer, TAG),
        ]
        self._until(lambda: MPI.Request.Testall(requests))

    def host_message(self) -> None:
        """Only the bytes, from and to page-locked memory of the host."""
        self._until(self._messages.post(self._peer, *self._rooms).test)

    def bus(self) -> None:
        """Out of the device and into it, at the same time."""
        (out, into), (away, back) = self._rooms, self._streams
        self._accelerator.copy(out.view("float32"), self._sent, away)
        self._accelerator.copy(self._received, into.view("float32"), back)
        self._finish(away, back)

    def copy(self) -> None:
        """A copy inside the device, by one rank alone."""
        if self._comm.rank == 0:
            self._accelerator.copy(self._received, self._sent, self._streams[0])
            self._finish(self._streams[0])

    def _finish(self, *streams: Any) -> None:
        events: list[Event] = [self._accelerator.record(stream) for stream in streams]
        self._until(lambda: all(self._accelerator.done(event) for event in events))

    def _until(self, over: Callable[[], bool]) -> None:
        """Ask without a pause: what is timed must not wait for a sleeper.

        Raises:
            DeadlineExceeded: it does not end.
        """
        deadline = Deadline(
            self._deadline_seconds, WallClock(), "the benchmark's transfer"
        )
        while not over():
            deadline.check()


def _figures(
    seconds: dict[str, float], size: int, shared: bool, options: GpuExchangeOptions
) -> list[Figure]:
    speeds = {name: size * 1e-9 / taken for name, taken in seconds.items()}
    note = f"{options.size:,} float32, ranks {'share a GPU' if shared else 'have one each'}"

    def figure(name: str, **more: Any) -> Figure:
        return Figure(name=name, value=speeds[name], unit="GB/s", note=note, **more)

    pipelined = min(speeds["bus"], speeds["host message"])
    found = [
        figure("staged", rival=pipelined, beside="bus, message", at_least=STAGED),
        figure("bus"),
        figure("host message"),
    ]
    if "device" not in speeds:
        return found
    least = None if shared else OWN_GPU
    found.append(
        figure(
            "device",
            rival=speeds["device message"],
            beside="Isend, Irecv",
            at_least=least,
        )
    )
    if shared:  # both ranks' bytes go through one memory
        bound = speeds["copy"] / PASSES
        found.append(
            figure("device", rival=bound, beside="all bytes", at_least=SHARED_GPU)
        )
    return found
