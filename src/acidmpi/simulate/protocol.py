"""Ranks that follow the real pairing protocol over a network, in virtual time.

Each rank computes gradients, talks, and exchanges as real ranks do: with the worker's own
state, demand and pairing machine, one exchange at a time, jumps carried from the moment
of their snapshot, gradients taken on the x that was read when they began. A run is a
function of its seed.

Guarantees:
- a rank is in one exchange at most; both its ends use the same numbers, so the mean of
  (x + x̃)/2 changes by updates only;
- messages between two ranks arrive in the order in which they were sent;
- nothing in here waits in real time.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.flat import Chunk
from acidmpi.dynamics.coefficients import Coefficients
from acidmpi.kernels.hyper import Add
from acidmpi.pairing.messages import Sends
from acidmpi.simulate.network import EventQueue
from acidmpi.simulate.protocol_members import Member, ProtocolOptions, make_member
from acidmpi.simulate.protocol_pulse import VirtualPulse
from acidmpi.simulate.protocol_rank import Conversation
from acidmpi.worker.state import Update

Floats = NDArray[np.float64]


class Learner(Protocol):
    """What ranks compute gradients of."""

    def update(self, rank: int, x: Floats) -> Floats:
        """What a gradient taken at `x` adds to x and x̃ (the optimiser's step)."""
        ...


class Moment(NamedTuple):
    """How things stood at one time."""

    seconds: float
    units: float
    gradients: int
    """Of all ranks."""
    exchanges: int
    """Of all ranks, each counted once."""
    consensus_distance: float
    mean: Floats
    """Of x over the ranks."""


class Totals(NamedTuple):
    """Sums over the ranks since the start."""

    seconds: float = 0.0
    messages: float = 0
    exchanges: float = 0
    """Each counted by both of its ends."""
    repeated: float = 0
    idle_seconds: float = 0.0


class Counts(NamedTuple):
    """What pairing came to, all ranks together."""

    messages_per_exchange: float
    repeated: float
    """Share of a rank's exchanges with the peer of its previous one."""
    exchanges_per_second: float
    """Of one rank, each counted at both ends."""
    comm_rate: float
    """Exchanges per rank and unit of time, of the whole run."""
    idle_share: float
    """Of the compute loops' time: waiting for max_lag."""


class _Transfer:
    """One exchange under way: what both ends have sent, piece by piece."""

    def __init__(self, ends: tuple[Member, Member], alpha_tilde: float) -> None:
        self.ends = ends
        self.alpha_tilde = alpha_tilde
        self.sent: dict[tuple[int, int], tuple[Floats, float]] = {}
        self.ahead = 0
        """Pieces applied at the first end, less those at the second."""

    def snapshot(self, chunk: Chunk) -> None:
        """Both ends read their piece."""
        for member in self.ends:
            out = np.empty(chunk.stop - chunk.start)
            theta = member.state.snapshot(chunk, out)
            self.sent[member.rank, chunk.start] = out, theta

    def apply(self, side: int, chunk: Chunk) -> None:
        """One end takes the jump of a piece."""
        member, peer = self.ends[side], self.ends[1 - side]
        self.ahead += 1 - 2 * side
        sent, theta = self.sent[member.rank, chunk.start]
        received, _ = self.sent[peer.rank, chunk.start]
        member.state.apply_exchange(chunk, sent, received, theta, 0.5, self.alpha_tilde)


class ProtocolSimulation:
    """All ranks of one run.

    Args:
        start: x of each rank, a row each; copied.
        options: how they work together.
        learner: what gradients are of; needed where gradients take time.
    """

    def __init__(
        self, start: Floats, options: ProtocolOptions, learner: Learner | None = None
    ) -> None:
        self._options = options
        self._learner = learner
        self._events = EventQueue()
        ration = options.coefficients(1.0).eta
        self.members = [
            make_member(rank, row, options, ration, self._events)
            for rank, row in enumerate(start)
        ]
        self._talks = [self._conversation(member) for member in self.members]
        self._pulse = VirtualPulse(self.members, options, self._events)
        size = len(self.members)
        self._chance = np.random.default_rng([options.seed, size, 2])
        self._arrived: dict[tuple[int, int], float] = {}
        self._held_since: list[float | None] = [None] * size
        self.messages_by_rank = [0] * size
        """Control messages sent."""
        self._chunks = _pieces(start.shape[1], options.pieces)
        self._under_way: set[_Transfer] = set()
        self._expected = self._half_sums().sum(axis=0)
        """Sum over the ranks of (x + x̃)/2, by updates alone."""
        self._open()

    def run(self, seconds: Sequence[float]) -> list[Moment]:
        """Go on to each of these moments, ascending, and look."""
        return [self._moment(when) for when in seconds]

    def totals(self) -> Totals:
        """Sums over the ranks so far."""
        tallies = [member.tally for member in self.members]
        return Totals(
            seconds=self._events.now(),
            messages=sum(self.messages_by_rank),
            exchanges=sum(t.exchanges for t in tallies),
            repeated=sum(t.repeated for t in tallies),
            idle_seconds=sum(m.ledger.idle_seconds for m in self.members),
        )

    def counts(self, since: Totals = Totals()) -> Counts:  # noqa: B008 - immutable
        """What pairing has come to after `since`."""
        now = Totals(*(a - b for a, b in zip(self.totals(), since, strict=True)))
        seconds = max(now.seconds, 1e-300) * len(self.members)
        return Counts(
            messages_per_exchange=2 * now.messages / max(now.exchanges, 1),
            repeated=now.repeated / max(now.exchanges, 1),
            exchanges_per_second=now.exchanges / seconds,
            comm_rate=self._pulse.comm_rate,
            idle_share=now.idle_seconds / seconds,
        )

    def drift(self) -> float:
        """Error of the mean of (x + x̃)/2, largest element.

        Goes on until no exchange is applied at one of its ends only.
        """
        while self._under_way:
            self._events.step()
        wrong = self._half_sums().sum(axis=0) - self._expected
        return float(np.abs(wrong).max()) / len(self.members)

    @property
    def coefficients(self) -> Coefficients:
        """Constants in use."""
        return self._pulse.coefficients

    # Talk and exchanges.

    def _conversation(self, member: Member) -> Conversation:
        rank = member.rank
        return Conversation(
            member.machine,
            member.demand,
            member.seconds_to_due,
            member.tally,
            self._events,
            lambda sends: self._send(rank, sends),
            lambda peer: self._meet(rank, peer),
        )

    def _open(self) -> None:
        self._pulse.beat()
        for member in self.members:
            self._talks[member.rank].act()
            if self._options.gradients is not None:
                self._compute(member)

    def _send(self, rank: int, sends: Sends) -> None:
        for peer, kind in sends:
            self.messages_by_rank[rank] += 1
            took = self._options.network.latency(rank, peer, self._chance)
            when = max(self._events.now() + took, self._arrived.get((rank, peer), 0.0))
            self._arrived[rank, peer] = when
            self._events.at(when, self._talks[peer].hear, rank, kind)

    def _meet(self, rank: int, peer: int) -> None:
        """`rank` is ready to exchange with `peer`: begin if the other one is, too."""
        other = self._talks[peer]
        if other.exchanging and other.machine.matched == rank:
            ends = self.members[rank], self.members[peer]
            self._transfer(_Transfer(ends, self._pulse.coefficients.alpha_tilde))

    def _transfer(self, transfer: _Transfer) -> None:
        network, began = self._options.network, self._events.now()
        i, j = (member.rank for member in transfer.ends)
        whole = network.transfer_seconds(i, j, self._options.message_bytes)
        each = whole / len(self._chunks)
        delays = [network.latency(i, j, self._chance) for _ in transfer.ends]
        for k, chunk in enumerate(self._chunks):
            if k:
                self._events.at(began + k * each, transfer.snapshot, chunk)
            else:
                transfer.snapshot(chunk)
            for side, delay in enumerate(delays):
                when = began + delay + (k + 1) * each
                last = k + 1 == len(self._chunks)
                self._events.at(when, self._land, transfer, side, chunk, last, began)

    def _land(
        self, transfer: _Transfer, side: int, chunk: Chunk, last: bool, began: float
    ) -> None:
        """A piece has come to one end; with the last one that end is free."""
        transfer.apply(side, chunk)
        self._balance(transfer)
        if not last:
            return
        member = transfer.ends[side]
        member.state.count_exchange()
        member.ledger.set_exchanges(member.tally.exchanges + 1)
        took = self._events.now() - began
        sent = int(self._options.message_bytes)
        self._talks[member.rank].finish(sent, took)
        self._release(member)

    def _balance(self, transfer: _Transfer) -> None:
        """Remember it while one end has applied more of it than the other."""
        if transfer.ahead:
            self._under_way.add(transfer)
        else:
            self._under_way.discard(transfer)

    # Gradients.

    def _compute(self, member: Member) -> None:
        """Begin a gradient at the x of this moment."""
        times, learner = self._options.gradients, self._learner
        assert times is not None
        assert learner is not None
        update = learner.update(member.rank, member.read())
        took = times.draw(member.rank, self._chance)
        self._events.after(took, self._computed, member, update)

    def _computed(self, member: Member, update: Floats) -> None:
        event = Update(0, 0, update.size, update, (), Add())
        self._expected += update
        member.state.apply_gradient([event])
        member.ledger.count_gradient(None, 1)
        member.units.count_gradient()
        self._talks[member.rank].act()
        if self._must_wait(member):
            self._held_since[member.rank] = self._events.now()
        else:
            self._compute(member)

    def _must_wait(self, member: Member) -> bool:
        limit = self._options.max_lag
        return limit is not None and member.ledger.lags(limit, member.lag_rate)

    def _release(self, member: Member) -> None:
        """An exchange was made: go on if communication has caught up."""
        since = self._held_since[member.rank]
        if since is not None and not self._must_wait(member):
            self._held_since[member.rank] = None
            member.ledger.idle_seconds += self._events.now() - since
            self._compute(member)

    # Looking.

    def _moment(self, when: float) -> Moment:
        self._events.run(when)
        x = np.stack([member.read() for member in self.members])
        mean = x.mean(axis=0)
        return Moment(
            seconds=when,
            units=float(np.mean([m.units.now() for m in self.members])),
            gradients=sum(m.ledger.gradients for m in self.members),
            exchanges=sum(m.tally.exchanges for m in self.members) // 2,
            consensus_distance=float(((x - mean) ** 2).sum(axis=1).mean()),
            mean=mean,
        )

    def _half_sums(self) -> Floats:
        return np.stack([member.half_sum() for member in self.members])


def _pieces(length: int, pieces: int) -> list[Chunk]:
    """The vector in so many pieces, or one for each number if there are fewer."""
    edges = np.linspace(0, length, min(pieces, length) + 1).astype(int)
    return [Chunk(0, int(start), int(stop)) for start, stop in pairwise(edges)]
