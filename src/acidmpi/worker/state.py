"""What the compute loop and the communication loop of one rank share.

Guarantees:
- an event (mix, then jump) is applied under `lock`, so no reader sees half of it;
- the time of the last event only grows;
- no MPI call is made and nothing sleeps while the lock is held, so a slow peer never
  stalls a gradient; the lock is held for one pass of a kernel over what it touches.

On a device the lock covers launches only; `arrays.site` orders the work itself.

Between events x and x̃ are stored as they were at the last event; whoever needs them now
mixes on the way (`snapshot` reads only). A jump that was measured at the time of its
snapshot is carried to the time of the stored values, before or after it.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.flat import Chunk, chunks
from acidmpi.arrays.site import HOST, Site, Turn
from acidmpi.dynamics.mixing import carried_jump, mixing_weight
from acidmpi.dynamics.timebase import RationedTheta
from acidmpi.kernels.hyper import Hyper
from acidmpi.kernels.protocol import Kernels
from acidmpi.worker.sampling import Sample, Sampler
from acidmpi.worker.units import Units

Array = NDArray[Any]

LARGEST_CARRY = 0.5
"""Carrying a jump back by θ multiplies its difference, and rounding, by e^(2θ)."""

MOST_VIEWS = 1 << 14


class Update(NamedTuple):
    """One fused launch of a gradient event on a slice of a buffer."""

    buffer: int
    start: int
    stop: int
    gradient: Array
    state: tuple[Array, ...]
    hyper: Hyper


Guard = Callable[[Callable[[Kernels], None]], None]
"""Calls what it is given, once and at once, with the kernels that it is to use."""


class RankState:
    """x, x̃ and the time they stand at, under one lock.

    Args:
        arrays: the flat buffers that hold x; views, changed in place.
        kernels: the backend that owns their memory.
        units: time; read under the lock only.
        accelerated: hold x̃; False is the baseline (η = 0), which never touches it.
        ration: the most that θ may grow for each exchange, see `RationedTheta`.
        site: where the arrays live.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        kernels: Kernels,
        units: Units,
        accelerated: bool,
        ration: float = math.inf,
        site: Site = HOST,
    ) -> None:
        self.lock = threading.RLock()
        self.arrays = tuple(arrays)
        self.kernels = kernels
        self.units = units
        self.site = site
        self._theta = RationedTheta(ration)
        self._stands_at = 0.0
        self.blocks = chunks(arrays, site.block_bytes)
        """All of x in pieces that a cache can hold."""
        with self.communicating():
            self._tilde = tuple(
                site.companion(x) if accelerated else None for x in arrays
            )
        self._views: dict[tuple[int, int, int], tuple[Array, Array | None]] = {}
        """Slices of both: a chunk is the same each time, and a device's cost to make."""
        self.restart()
        self._sampler = Sampler(self._begin_sample)
        self._gaps: tuple[tuple[tuple[int, int, int], ...], list[Chunk]] = ((), [])

    def computing(self) -> Turn:
        """A turn of the compute loop, in its stream: holds the lock."""
        return self.site.computing(self.lock)

    def communicating(self) -> Turn:
        """A turn of the communication loop, in its stream: holds the lock."""
        return self.site.communicating(self.lock)

    @property
    def accelerated(self) -> bool:
        """Whether x̃ is held."""
        return any(t is not None for t in self._tilde)

    @property
    def x_tilde(self) -> tuple[Array | None, ...]:
        """x̃, one array for each buffer; None for the baseline. Hold the lock to use it."""
        return self._tilde

    def set_eta(self, eta: float) -> None:
        """Mix at this rate from now on."""
        with self.lock:
            self._theta.set_eta(eta, self.units.now())

    def set_ration(self, ration: float) -> None:
        """Allow so much mixing for each exchange from now on."""
        with self.lock:
            self._theta.at(self.units.now())
            self._theta.set_ration(ration)

    def count_exchange(self) -> None:
        """One exchange is complete: it allows for some mixing."""
        with self.lock:
            self._theta.count_exchange()

    def state(self) -> dict[str, Any]:
        """x, x̃ and the time they stand at, not copied: hold the lock as long as needed."""
        return {
            "x": list(self.arrays),
            "x_tilde": list(self._tilde),
            "stands_at": self._stands_at,
            "theta": self._theta.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be as `state` said; its arrays are copied."""
        with self.communicating():
            for mine, name in ((self.arrays, "x"), (self._tilde, "x_tilde")):
                for target, values in zip(mine, state[name], strict=True):
                    if target is not None:
                        self.site.put(target, values)
            self._stands_at = state["stands_at"]
            self._theta.restore(state["theta"])

    def restart(self) -> None:
        """Set x̃ to x, as at the start of a run, after x was written from outside."""
        with self.communicating():
            for x, tilde in zip(self.arrays, self._tilde, strict=True):
                if tilde is not None:
                    self.site.restart(self.kernels, x, tilde)

    def snapshot(self, chunk: Chunk, out: Array) -> float:
        """Write x as it is now into `out`; change nothing.

        Returns:
            The θ of this moment, for `apply_exchange`.
        """
        with self.communicating():
            return self._snapshot(chunk, out)

    def copy(self, chunk: Chunk, out: Array) -> None:
        """Write x as it is now into `out`, in the caller's stream."""
        with self.computing():
            self._snapshot(chunk, out)

    def _snapshot(self, chunk: Chunk, out: Array) -> float:
        theta = self._now()
        x, tilde = self._slices(chunk)
        weight = mixing_weight(theta - self._stands_at)
        self.kernels.snapshot(x, tilde, out, weight)
        return theta

    def apply_exchange(
        self,
        chunk: Chunk,
        sent: Array,
        received: Array,
        theta: float,
        alpha: float,
        alpha_tilde: float,
    ) -> None:
        """Apply the jump of one chunk whose snapshot was taken at `theta`."""
        with self.communicating():
            if theta - self._stands_at > LARGEST_CARRY:
                self._mix_all()
            a, b = carried_jump(alpha, alpha_tilde, self._stands_at - theta)
            x, tilde = self._slices(chunk)
            self.kernels.apply_exchange(x, tilde, sent, received, a, b)

    def apply_gradient(
        self, updates: Sequence[Update], guard: Guard | None = None
    ) -> None:
        """One gradient event: mix everything to now and apply the updates.

        Args:
            updates: what to apply.
            guard: chooses their kernels; None is the state's own.
        """
        with self.computing():
            theta = self._now()
            weight = mixing_weight(theta - self._stands_at)

            steps = [(*self._slices(u), u.gradient, u.state, u.hyper) for u in updates]

            def apply(kernels: Kernels) -> None:
                kernels.apply_gradients(steps, weight)

            if guard is None:
                apply(self.kernels)
            else:
                guard(apply)
            self._mix_gaps(updates, weight)
            self._stands_at = theta

    def apply_foreign(self, event: Callable[[], None]) -> None:
        """Mix everything to now, then let `event` change x and x̃, under the lock."""
        with self.computing():
            self._mix_all()
            event()

    def flush(self) -> None:
        """Mix everything to now."""
        with self.communicating():
            self._mix_all()

    def half_sum(self, chunk: Chunk, out: Array) -> None:
        """Write (x + x̃)/2 into `out`; mixing does not change it."""
        with self.communicating():
            x, tilde = self._slices(chunk)
            self.kernels.snapshot(x, tilde, out, 0.5)

    def read(self, chunk: Chunk) -> Array:
        """X as it was at the last event, in host memory: to be read, not changed."""
        with self.communicating():
            fetch = self.site.fetch(self._slices(chunk)[0])
        return fetch.values()

    def read_half(self, chunk: Chunk) -> Array:
        """(x + x̃)/2 in host memory, in the precision of x."""
        out = self.site.empty(chunk.stop - chunk.start, self.arrays[chunk.buffer].dtype)
        with self.communicating():
            self.half_sum(chunk, out)
            fetch = self.site.fetch(out)
        return fetch.values()

    def write(self, chunk: Chunk, values: Array) -> None:
        """Replace x by host values; x̃ is left as it is."""
        with self.communicating():
            self.site.put(self._slices(chunk)[0], values)

    def sample(
        self, coordinates: Sequence[NDArray[np.intp]]
    ) -> list[NDArray[np.float64]]:
        """X at a few coordinates of each buffer, as float64.

        As it is now; on a device, that it may not keep waiting, as it was at an earlier
        call.
        """
        return self._sampler.sample(coordinates)

    def _begin_sample(self, coordinates: Sequence[NDArray[np.intp]]) -> Sample:
        with self.communicating():
            weight = mixing_weight(self._now() - self._stands_at)
            gather = self.site.gather
            x = list(map(gather, self.arrays, coordinates))
            tilde = [
                None if t is None else gather(t, c)
                for t, c in zip(self._tilde, coordinates, strict=True)
            ]
        return Sample(x, tilde, weight)

    def _now(self) -> float:
        return self._theta.at(self.units.now())

    def _slices(self, part: "Chunk | Update") -> tuple[Array, Array | None]:
        where = part[:3]
        found = self._views.get(where)
        if found is None:
            if len(self._views) >= MOST_VIEWS:
                self._views.clear()
            buffer, start, stop = where
            x, tilde = self.arrays[buffer][start:stop], self._tilde[buffer]
            found = x, None if tilde is None else tilde[start:stop]
            self._views[where] = found
        return found

    def _mix_all(self) -> None:
        theta = self._now()
        self._mix_gaps((), mixing_weight(theta - self._stands_at))
        self._stands_at = theta

    def _mix_gaps(self, updates: Sequence[Update], weight: float) -> None:
        """Mix what no update covers, block by block."""
        if weight == 0.0 or not self.accelerated:
            return
        for chunk in self._uncovered(updates):
            x, tilde = self._slices(chunk)
            assert tilde is not None
            self.kernels.apply_exchange(x, tilde, x, tilde, weight, -weight)

    def _uncovered(self, updates: Sequence[Update]) -> list[Chunk]:
        """Blocks outside `updates`; remembered, because the ranges rarely change."""
        covered = tuple(sorted((u.buffer, u.start, u.stop) for u in updates))
        if covered != self._gaps[0] or not self._gaps[1]:
            gaps = [
                chunk
                for buffer, x in enumerate(self.arrays)
                for chunk in _blocks_between(buffer, x, covered, self.site.block_bytes)
            ]
            self._gaps = (covered, gaps)
        return self._gaps[1]


def _blocks_between(
    buffer: int, x: Array, covered: Sequence[tuple[int, int, int]], block_bytes: int
) -> list[Chunk]:
    """What `covered` leaves of buffer `x`, in blocks of at most `block_bytes`."""
    edges = [0, *(e for b, i, j in covered if b == buffer for e in (i, j)), x.size]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return [
        Chunk(buffer, start + piece.start, start + piece.stop)
        for start, stop in gaps
        for piece in chunks([x[start:stop]], block_bytes)
    ]
