"""The reference: replays a list of events for any number of ranks in float64.

Slow and plain on purpose; fast code is compared with it. It never carries a jump. Where
a jump arrives late, it goes back to the moment of the snapshot, jumps there, and lives
through the mixing and the gradients of that stretch again.

Guarantees:
- a snapshot only reads: a list with snapshots that nobody uses gives the same result;
- a jump counts from its own snapshot, whatever happened before it was applied;
- ranks meet only in `Exchange` and `Jump`; the thetas of two ranks are never compared.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acidmpi.dynamics.coefficients import Coefficients
from acidmpi.dynamics.mixing import mixing_weight

Floats = NDArray[np.float64]


class Gradient(NamedTuple):
    """`rank` adds `update` to its x and its x_tilde, at its own `theta`."""

    rank: int
    theta: float
    update: ArrayLike


class Exchange(NamedTuple):
    """`rank` and `peer` average whole vectors at one instant, each at its own theta."""

    rank: int
    peer: int
    theta: float
    peer_theta: float


class Snapshot(NamedTuple):
    """`rank` reads elements start:stop of x for the exchange `label`.

    A label is unique to one exchange; both its ends use it.
    """

    rank: int
    theta: float
    label: Hashable
    start: int
    stop: int


class Jump(NamedTuple):
    """`rank` applies the chunk of `label` at `start`; both ends have read theirs."""

    rank: int
    peer: int
    label: Hashable
    start: int


Event = Gradient | Exchange | Snapshot | Jump


def mixed(x: Floats, x_tilde: Floats, theta: float) -> tuple[Floats, Floats]:
    """Both vectors after mixing for an elapsed `theta`, as new arrays."""
    flow = mixing_weight(theta) * (x_tilde - x)
    return x + flow, x_tilde - flow


@dataclass
class _Chunk:
    """A slice as it was when its snapshot was taken, and what came later."""

    stop: int
    theta: float
    x: Floats
    x_tilde: Floats
    later: list[tuple[float, Floats]] = field(default_factory=list)

    def advance(self, theta: float) -> None:
        self.x, self.x_tilde = mixed(self.x, self.x_tilde, theta - self.theta)
        self.theta = theta

    def relive(self, m: Floats, coefficients: Coefficients) -> None:
        """Jump at the snapshot, then pass through the gradients that came later."""
        self.x = self.x - coefficients.alpha * m
        self.x_tilde = self.x_tilde - coefficients.alpha_tilde * m
        for theta, update in self.later:
            self.advance(theta)
            self.x = self.x + update
            self.x_tilde = self.x_tilde + update


class ReferenceRank:
    """State of one rank: x and x_tilde at `theta`, and the chunks under way."""

    def __init__(self, x: ArrayLike, x_tilde: ArrayLike | None = None) -> None:
        self.x = np.array(x, dtype=np.float64)
        self.x_tilde = np.array(x if x_tilde is None else x_tilde, dtype=np.float64)
        self.theta = 0.0
        self._open: dict[tuple[Hashable, int], _Chunk] = {}

    def advance(self, theta: float) -> None:
        """Mix up to `theta`."""
        self.x, self.x_tilde = mixed(self.x, self.x_tilde, theta - self.theta)
        self.theta = theta

    def gradient(self, theta: float, update: ArrayLike) -> None:
        """Take the same update on x and x_tilde."""
        whole = np.broadcast_to(np.asarray(update, dtype=np.float64), self.x.shape)
        self.advance(theta)
        self.x = self.x + whole
        self.x_tilde = self.x_tilde + whole
        for (_, start), chunk in self._open.items():
            chunk.later.append((theta, whole[start : chunk.stop]))

    def snapshot(self, theta: float, label: Hashable, start: int, stop: int) -> Floats:
        """Read a slice of x at `theta` and remember the moment."""
        self.advance(theta)
        here = slice(start, stop)
        chunk = _Chunk(stop, theta, self.x[here].copy(), self.x_tilde[here].copy())
        self._open[label, start] = chunk
        return self.x[here].copy()

    def jump(
        self, label: Hashable, start: int, m: Floats, coefficients: Coefficients
    ) -> None:
        """Apply the difference `m` as of the chunk's snapshot."""
        chunk = self._open.pop((label, start))
        chunk.relive(m, coefficients)
        chunk.advance(self.theta)
        self.x[start : chunk.stop] = chunk.x
        self.x_tilde[start : chunk.stop] = chunk.x_tilde

    def step(self, m: Floats, coefficients: Coefficients) -> None:
        """Apply the difference `m` of whole vectors now."""
        self.x = self.x - coefficients.alpha * m
        self.x_tilde = self.x_tilde - coefficients.alpha_tilde * m


class Reference:
    """All ranks together.

    Args:
        x: one row for each rank.
        coefficients: shares of the jumps; eta is already in the thetas of the events.
    """

    def __init__(self, x: ArrayLike, coefficients: Coefficients) -> None:
        rows = np.asarray(x, dtype=np.float64)
        self.ranks = [ReferenceRank(row) for row in rows]
        self._coefficients = coefficients
        self._sent: dict[tuple[int, Hashable, int], Floats] = {}

    @property
    def x(self) -> Floats:
        """One row for each rank."""
        return np.stack([rank.x for rank in self.ranks])

    @property
    def x_tilde(self) -> Floats:
        """One row for each rank."""
        return np.stack([rank.x_tilde for rank in self.ranks])

    @property
    def mean(self) -> Floats:
        """Average over ranks of (x + x_tilde) / 2, which exchanges keep."""
        return np.asarray((self.x + self.x_tilde).mean(axis=0) / 2)

    @property
    def consensus_distance(self) -> float:
        """Mean over ranks of the squared distance of x to its average."""
        x = self.x
        return float(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())

    def replay(self, events: Iterable[Event]) -> None:
        """Let `events` happen, in the order given."""
        for event in events:
            self._happen(event)

    def flush(self, theta: float) -> None:
        """Mix every rank up to `theta`, for clocks that share their zero."""
        for rank in self.ranks:
            rank.advance(theta)

    def _happen(self, event: Event) -> None:
        match event:
            case Gradient(rank, theta, update):
                self.ranks[rank].gradient(theta, update)
            case Exchange():
                self._exchange(event)
            case Snapshot(rank, theta, label, start, stop):
                sent = self.ranks[rank].snapshot(theta, label, start, stop)
                self._sent[rank, label, start] = sent
            case Jump(rank, peer, label, start):
                m = self._sent[rank, label, start] - self._sent[peer, label, start]
                self.ranks[rank].jump(label, start, m, self._coefficients)

    def _exchange(self, event: Exchange) -> None:
        rank, peer = self.ranks[event.rank], self.ranks[event.peer]
        rank.advance(event.theta)
        peer.advance(event.peer_theta)
        m = rank.x - peer.x
        rank.step(m, self._coefficients)
        peer.step(-m, self._coefficients)
