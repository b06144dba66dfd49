"""Threads that give way at the worst moments, and ranks of one process without MPI."""

import sys
import threading
import time
from collections import defaultdict, deque
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from acidmpi.clocks import ManualClock
from acidmpi.dynamics.arrivals import PoissonArrivals
from acidmpi.dynamics.coefficients import acid_coefficients
from acidmpi.dynamics.governor import Governor
from acidmpi.kernels import load
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.wire import Message
from acidmpi.progress import Pace
from acidmpi.telemetry.heartbeat import Heartbeat
from acidmpi.telemetry.sketch import Sketcher
from acidmpi.topology.make import make_topology
from acidmpi.topology.spectrum import spectrum
from acidmpi.transport.loopback import LoopbackHub
from acidmpi.worker.averaging import Averaging
from acidmpi.worker.demand import PoissonDemand
from acidmpi.worker.exchange import Exchanger
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.loop import CommunicationLoop
from acidmpi.worker.pulse import Pulse
from acidmpi.worker.state import RankState
from acidmpi.worker.tally import Tally
from acidmpi.worker.units import WallUnits


class NoLock:
    """A planted fault: it lets everyone in, at any time."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def notify_all(self):
        pass

    def wait_for(self, ready, seconds):
        end = time.perf_counter() + seconds
        while not ready() and time.perf_counter() < end:
            time.sleep(1e-4)
        return ready()


@pytest.fixture
def no_lock():
    return NoLock()


PLACES = (
    "/acidmpi/worker/",
    "/acidmpi/dynamics/",
    "/acidmpi/kernels/reference",
    "/unit/worker/test_",
)
BLOCKED_SECONDS = 0.004
"""Whoever needs longer is taken to wait for the one who is interrupted."""


@pytest.fixture
def interrupt():
    """`interrupt(first, second, moment)`: at one instruction of `first`, do `second`.

    `second` runs in a thread of its own until it is over or waits for a lock. Tells
    whether `first` has that many instructions.
    """

    def run(first, second, moment):
        def trace(frame, event, argument):
            if not any(place in frame.f_code.co_filename for place in PLACES):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                seen[0] += 1
                if seen[0] == moment + 1:
                    thread.start()
                    thread.join(BLOCKED_SECONDS)
            return trace

        seen = [0]
        thread = threading.Thread(target=second)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            first()
        finally:
            sys.settrace(before)
            if seen[0] > moment:
                thread.join()
        return seen[0] > moment

    return run


@pytest.fixture
def every_moment(interrupt):
    """`every_moment(make, 7)`: interrupt some work at every seventh instruction.

    `make()` gives what is interrupted, what comes in, and a check of the outcome.
    """

    def run(make, stride=1):
        for moment in count(step=stride):
            first, second, check = make()
            reached = interrupt(first, second, moment)
            if not reached:
                assert moment > 10, "there was nothing to interrupt"
                return
            check()

    return run


class World:
    """Collectives of ranks in one process: complete once every rank has called."""

    def __init__(self, size):
        self.size = size
        self.calls = defaultdict(dict)
        self.silent = set()
        """Ranks whose calls reach nobody."""

    def comm(self, rank):
        return FakeComm(self, rank)


class FakeComm:
    """The few calls of a communicator that a worker makes."""

    def __init__(self, world, rank):
        self.world, self.rank, self.size = world, rank, world.size
        self._made = 0

    def Iallreduce(self, mine, result, op=None):
        return self._call(
            mine, lambda all_of_them: result.__setitem__(..., all_of_them)
        )

    def Ireduce(self, mine, result, op=None, root=0):
        def keep(total):
            if self.rank == root:
                result[...] = total

        return self._call(mine, keep)

    def _call(self, mine, keep):
        call = self.world.calls[self._made]
        self._made += 1
        if self.rank not in self.world.silent:
            call[self.rank] = mine.copy()
        return FakeRequest(call, self.size, keep)


class FakeRequest:
    def __init__(self, call, size, keep):
        self._call, self._size, self._keep = call, size, keep

    def Test(self):
        if len(self._call) < self._size:
            return False
        self._keep(np.sum([self._call[r] for r in range(self._size)], axis=0))
        return True


@pytest.fixture
def world():
    return World


class FakeWire:
    """Control messages through queues, one for each channel; `post` is shared by all."""

    def __init__(self, post, rank, size):
        self._post, self._rank = post, rank
        self.sent_to = [0] * size
        self.received = 0
        self.quiet = True
        self.closed = False
        self.deaf = False

    @property
    def sent(self):
        return sum(self.sent_to)

    def send(self, peer, kind, notice, text="", load=b""):
        self.sent_to[peer] += 1
        self._post[peer].append(Message(self._rank, kind, notice, text, load))

    def receive(self):
        if self.deaf or not self._post[self._rank]:
            return None
        assert not self.closed
        self.received += 1
        return self._post[self._rank].popleft()

    def close(self):
        self.closed = True


class Fleet:
    """Ranks with everything but MPI and threads, in one process, by a clock of its own."""

    def __init__(
        self, size, *, numbers=40, goal=None, rate=1.0, unit=1.0, deadline=50.0
    ):
        self.clock = ManualClock()
        self.world = World(size)
        self.hub = LoopbackHub(size)
        self.post = defaultdict(deque)
        self.topology = make_topology("complete" if size < 3 else "ring", size)
        self.found = spectrum(self.topology)
        self.unit = unit
        self.ranks = [
            self._assemble(r, size, numbers, goal, rate, deadline) for r in range(size)
        ]

    def _assemble(self, rank, size, numbers, goal, rate, deadline):
        clock, comm = self.clock, self.world.comm(rank)
        x = np.random.default_rng(rank).standard_normal(numbers)
        units = WallUnits(clock, self.unit)
        state = RankState([x], load("reference"), units, True)
        ledger, tally = Ledger(rank, size, goal), Tally(size)
        exchanger = Exchanger(state, self.hub.transport(rank), 64, clock, deadline, 0.0)
        averaging = Averaging(
            self.world.comm(rank), state, ledger, None, clock, deadline
        )
        neighbours = self.topology.neighbours(rank)
        machine = HandshakeMachine(
            rank,
            neighbours,
            self.topology.edge_weights(rank),
            np.random.default_rng(100 + rank),
        )
        arrivals = PoissonArrivals(
            self.topology.start_rate(rank, rate), np.random.default_rng(200 + rank)
        )
        at_one = acid_coefficients(*self.found[:2])
        pulse = Pulse(
            heartbeat=Heartbeat(comm, Pulse.length(size), 0.25, deadline, clock),
            comm=comm,
            state=state,
            ledger=ledger,
            tally=tally,
            governor=Governor(at_one, rate),
            coefficients=at_one._replace(eta=0.0, alpha_tilde=0.5),
            units=units,
            fixed_unit=True,
            sketcher=Sketcher([numbers], 0),
            averaging=averaging,
            clock=clock,
        )
        wire = FakeWire(self.post, rank, size)
        demand = PoissonDemand(arrivals, units, lambda: ledger.lag(rate), 1e9)
        loop = CommunicationLoop(
            machine=machine,
            wire=wire,
            demand=demand,
            exchanger=exchanger,
            pulse=pulse,
            averaging=averaging,
            ledger=ledger,
            tally=tally,
            clock=clock,
            deadline_seconds=deadline,
            hot_seconds=0.0,
        )
        return SimpleNamespace(**{k: v for k, v in locals().items() if k != "self"})

    def run(self, seconds, step=0.01, chance=None):
        """Advance every loop in turn while the clock goes on; by chance some only."""
        end = self.clock.now() + seconds
        while self.clock.now() < end and not self.ended:
            self.clock.advance(step)
            for one in self.ranks:
                if not one.loop.ended and (chance is None or chance.random() < 0.3):
                    self.advance(one)

    def advance(self, one):
        """As a driver does."""
        for _ in range(100):
            if one.loop.advance() is not Pace.HOT:
                return

    def retire(self):
        for one in self.ranks:
            one.ledger.retired = True

    @property
    def ended(self):
        return all(one.loop.ended for one in self.ranks)

    @property
    def mean(self):
        halves = []
        for one in self.ranks:
            half = np.empty_like(one.state.arrays[0])
            for chunk in one.state.blocks:
                one.state.half_sum(chunk, half[chunk.start : chunk.stop])
            halves.append(half)
        return np.mean(halves, axis=0)


@pytest.fixture
def fleet():
    return Fleet
