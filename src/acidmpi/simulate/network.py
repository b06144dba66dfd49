"""Virtual seconds: a queue of events, links that take time, and gradients that do.

Nobody waits here: the clock jumps to the next event. Everything is drawn from the
generators passed in, so a run is a function of its seed.
"""

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from acidmpi.errors import ConfigError

Call = Callable[..., None]


class EventQueue:
    """A clock that jumps from event to event; events of one moment keep their order.

    It is an `acidmpi.clocks.Clock`. Cost per event: a heap's, whatever the number of
    ranks.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._order = count()
        self._waiting: list[tuple[float, int, Call, tuple[Any, ...]]] = []

    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    def at(self, seconds: float, call: Call, *arguments: Any) -> None:
        """Call `call(*arguments)` at `seconds`; one that is over already comes next."""
        entry = (max(seconds, self._now), next(self._order), call, arguments)
        heapq.heappush(self._waiting, entry)

    def after(self, seconds: float, call: Call, *arguments: Any) -> None:
        """Call `call(*arguments)` in `seconds` from now."""
        self.at(self._now + seconds, call, *arguments)

    def run(self, until_seconds: float) -> None:
        """Let everything happen up to `until_seconds`, that moment included."""
        while self._waiting and self._waiting[0][0] <= until_seconds:
            self.step()
        self._now = max(self._now, until_seconds)

    def step(self) -> None:
        """Let the next event happen; there must be one."""
        self._now, _, call, arguments = heapq.heappop(self._waiting)
        call(*arguments)


class Link(NamedTuple):
    """One edge, the same in both directions, which do not disturb each other."""

    latency_seconds: float = 0.0
    """Mean time of a control message, and of the first byte of an exchange."""

    bytes_per_second: float = math.inf
    """What passes in each direction."""


@dataclass(frozen=True)
class Network:
    """The links between ranks.

    A rank is in one exchange at a time, so its own interface is never shared by two:
    the speed of a link is that of an exchange.

    Args:
        link: every edge that is not named.
        links: edges of their own, by their ranks i < j.
        spread: standard deviation of a latency over its mean; gamma-distributed.

    Raises:
        ConfigError: a link that carries nothing, or a negative time.
    """

    link: Link = field(default=Link())
    links: Mapping[tuple[int, int], Link] = field(default_factory=dict)
    spread: float = 0.5

    def __post_init__(self) -> None:
        for link in (self.link, *self.links.values()):
            _check(link)
        if not (math.isfinite(self.spread) and self.spread >= 0):
            raise ConfigError(f"a spread of latencies is at least 0, got {self.spread}")

    def between(self, rank: int, peer: int) -> Link:
        """The link of two ranks."""
        if not self.links:
            return self.link
        return self.links.get((min(rank, peer), max(rank, peer)), self.link)

    def latency(self, rank: int, peer: int, generator: np.random.Generator) -> float:
        """Seconds of one message, drawn."""
        mean = self.between(rank, peer).latency_seconds
        return drawn(mean, self.spread, generator)

    def transfer_seconds(self, rank: int, peer: int, sent_bytes: float) -> float:
        """Seconds that a long message takes beyond its latency."""
        return sent_bytes / self.between(rank, peer).bytes_per_second


@dataclass(frozen=True)
class GradientTimes:
    """How long gradients take, by rank.

    Args:
        means: mean seconds of each rank.
        spread: standard deviation over the mean of a single gradient;
            gamma-distributed, independent.
    """

    means: tuple[float, ...]
    spread: float = 0.0

    @classmethod
    def of(
        cls,
        size: int,
        seconds: float,
        *,
        spread: float = 0.0,
        straggler: float = 1.0,
        stragglers: int = 1,
    ) -> "GradientTimes":
        """The last `stragglers` ranks are `straggler` times slower than the others.

        Raises:
            ConfigError: no time, or more stragglers than ranks.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            raise ConfigError(f"a gradient takes a positive time, got {seconds} s")
        if not (straggler >= 1 and 0 <= stragglers <= size):
            raise ConfigError(
                "stragglers are some of the ranks, at least 1 times slower than the "
                f"others, got {stragglers} of {size}, {straggler} times slower"
            )
        slow = [seconds * straggler] * stragglers
        return cls((*([seconds] * (size - stragglers)), *slow), spread)

    def draw(self, rank: int, generator: np.random.Generator) -> float:
        """Seconds of one gradient of `rank`."""
        return drawn(self.means[rank], self.spread, generator)

    @property
    def unit_seconds(self) -> float:
        """The unit of time if nobody ever waits: ranks over gradients per second."""
        return len(self.means) / sum(1 / mean for mean in self.means)


def drawn(mean: float, spread: float, generator: np.random.Generator) -> float:
    """A gamma-distributed time; constant where `spread` is 0."""
    if spread == 0 or mean == 0:
        return mean
    return float(generator.gamma(spread**-2, mean * spread**2))


def _check(link: Link) -> None:
    if not (math.isfinite(link.latency_seconds) and link.latency_seconds >= 0):
        raise ConfigError(
            f"a latency is finite and at least 0 s, got {link.latency_seconds}"
        )
    if not link.bytes_per_second > 0:
        raise ConfigError(
            "a link must carry something, got a bandwidth of "
            f"{link.bytes_per_second:g} bytes a second"
        )
