"""One complete exchange of a long vector beside two simpler ways to move it.

The rivals use the same kernels, the same transport and the same tight loop of polls:

- unpipelined: one snapshot of the whole vector, one message each way, one jump;
- messages: that one message each way and nothing else;
- passes: the exchange without its messages, that is its reading and writing of memory.

Where moving bytes takes all of a core, messages and passes can only follow one another:
their sum is what the exchange is to be compared with.

Every way begins with the same state, mixed to the present as after a gradient.
"""

import math
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.arrays.flat import Chunk
from acidmpi.bench.cores import LAPS, shared_word
from acidmpi.bench.options import ExchangeOptions
from acidmpi.bench.report import Figure
from acidmpi.bench.timing import interleaved
from acidmpi.clocks import WallClock
from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.errors import ConfigError
from acidmpi.kernels import load
from acidmpi.mpi.communicators import Communicators
from acidmpi.mpi.library import mpi_library
from acidmpi.mpi.nodes import find_node
from acidmpi.transport.host import HostTransport
from acidmpi.transport.pieces import longest_message
from acidmpi.transport.protocol import Array, Pending, Transport
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.state import RankState
from acidmpi.worker.units import WallUnits

RING_16 = acid_coefficients(13.137, 0.938)
"""Constants that are not those of two ranks, whose x and x̃ would soon be one."""


def run(options: ExchangeOptions, comm: MPI.Comm) -> list[Figure]:
    """Time the exchange and its rivals, in turn."""
    if comm.size != 2:
        raise ConfigError(f"an exchange is one of 2 ranks, got {comm.size}")
    comms = Communicators.open(comm, options.deadline_seconds, ["data"])
    pair = Pair(options, comms.data)
    with shared_word(comm) as word:
        ways = {
            "exchange": pair.exchange,
            "unpipelined": pair.unpipelined,
            "messages": pair.messages,
            "passes": pair.passes,
        }
        if word is not None:
            ways["word"] = word.run
        seconds = interleaved(comm, ways, options.rounds, lambda _: pair.state.flush())
    comms.close()
    return _figures(seconds, pair, options)


class Pair:
    """One end of the exchanges.

    Args:
        options: what to exchange.
        comm: two ranks, and nobody else communicates.
    """

    def __init__(self, options: ExchangeOptions, comm: MPI.Comm) -> None:
        self._peer = 1 - comm.rank
        draw = np.random.default_rng(comm.rank)
        values = draw.standard_normal(options.size).astype(options.dtype)
        accelerated = options.method == "a2cid2"
        self.state = RankState(
            [values], load("cpu"), WallUnits(WallClock(), 1.0), accelerated
        )
        self._constants = RING_16 if accelerated else BASELINE
        self.state.set_eta(self._constants.eta)
        self._transport = HostTransport(comm)
        self.chunk_bytes = options.chunk_bytes or _default_chunk_bytes()
        node = find_node(comm, options.deadline_seconds)
        longest = longest_message(options.message_bytes, node, mpi_library())
        self.message_bytes = longest(self._peer)
        self._exchanger = self._exchanger_by(HostTransport(comm, longest), options)
        self._still = self._exchanger_by(Still(), options)
        self.bytes_each_way = values.nbytes
        self._whole = Chunk(0, 0, values.size)
        self._sent, self._received = values.copy(), values.copy()

    @property
    def cut(self) -> str:
        """How the bytes are cut, in words."""
        chunks = f"chunks of {self.chunk_bytes} B"
        if self.message_bytes is None:
            return chunks
        return f"{chunks}, messages of {self.message_bytes}"

    def exchange(self) -> None:
        """The worker's own, its generator driven without a pause."""
        self._drive(self._exchanger)

    def passes(self) -> None:
        """The same where nothing travels: what a buffer holds is applied again."""
        self._drive(self._still)

    def unpipelined(self) -> None:
        """One step after the other."""
        _, alpha, alpha_tilde = self._constants
        theta = self.state.snapshot(self._whole, self._sent)
        self.messages()
        self.state.apply_exchange(
            self._whole, self._sent, self._received, theta, alpha, alpha_tilde
        )

    def messages(self) -> None:
        """Only the bytes."""
        _wait(self._transport.post(self._peer, self._sent, self._received))

    def _drive(self, exchanger: Exchanger) -> None:
        _, alpha, alpha_tilde = self._constants
        for _ in exchanger.exchange(Terms(self._peer, alpha, alpha_tilde)):
            pass

    def _exchanger_by(
        self, transport: Transport, options: ExchangeOptions
    ) -> Exchanger:
        patience = options.deadline_seconds
        return Exchanger(
            self.state, transport, self.chunk_bytes, WallClock(), patience, patience
        )


class Still:
    """A transport that moves nothing, at once."""

    name = "still"

    def __init__(self) -> None:
        self._filled: set[int] = set()

    def post(self, peer: int, send: Array, receive: Array) -> Pending:
        """Complete from the start; a buffer seen for the first time gets numbers."""
        address = receive.ctypes.data
        if address not in self._filled:  # new memory may hold anything, NaN included
            receive[:] = send
            self._filled.add(address)
        return _Complete()

    def withdraw(self) -> int:
        """Nothing is under way."""
        return 0

    def drain(self, peer: int, sizes: Sequence[int]) -> None:
        """Nothing comes."""

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """Always."""
        return True

    def drop(self) -> None:
        """Nothing is under way."""

    def abandon(self) -> None:
        """Nothing is under way."""


class _Complete:
    def test(self) -> bool:
        return True


def _wait(pending: Pending) -> None:
    while not pending.test():
        pass


def _default_chunk_bytes() -> int:
    default: Any = WorkerOptions.__dataclass_fields__["chunk_bytes"].default
    return int(default)


def _figures(
    seconds: dict[str, float], pair: Pair, options: ExchangeOptions
) -> list[Figure]:
    def figure(name: str, rival: str, **more: Any) -> Figure:
        return Figure(
            name=f"{name} beside {rival}",
            value=1e3 * seconds[name],
            unit="ms",
            rival=1e3 * seconds[rival],
            beside=rival,
            **more,
        )

    seconds["messages and passes"] = seconds["messages"] + seconds["passes"]
    speed = pair.bytes_each_way / seconds["exchange"] * 1e-9
    return [
        figure(
            "exchange",
            "unpipelined",
            at_most=0.7,
            note="asked over shared memory",
        ),
        figure("exchange", "messages", at_most=1.25, note="asked over loopback TCP"),
        figure("unpipelined", "messages"),
        figure("passes", "messages"),
        figure(
            "exchange",
            "messages and passes",
            note="1 where neither can hide behind the other",
        ),
        Figure(
            name="exchanged each way",
            value=speed,
            unit="GB/s",
            note=f"{options.size:,} {options.dtype} in {pair.cut}",
        ),
        Figure(
            name="a word of memory, there and back",
            value=1e9 * seconds.get("word", math.nan) / LAPS,
            unit="ns",
            note="tells whether the two cores share a cache",
        ),
    ]
