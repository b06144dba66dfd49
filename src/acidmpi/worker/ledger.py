"""What the two loops of a rank tell each other, apart from the parameters.

Guarantees:
- every change is made under one lock, held for a few assignments, except that each
  plain number has one writer, and a reader may see it one moment late;
- `flags` only gain bits, and the first failure is kept: neither can un-happen;
- counts of other ranks are maxima, so that late or repeated news do no harm.
"""

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from acidmpi.errors import DeadlineExceeded

FINISHED = 1
"""The goal of gradients is reached."""
INTERRUPTED = 2
"""A rank was asked to stop."""
FAILED = 4
"""A rank has failed; its text follows in a message of its own."""
BROKEN = 8
"""The failing rank's communication loop is dead: wait for nothing."""
ENDED = 16
"""All ranks that live have left and no exchange is at hand (where ranks may die)."""

_REASONS = ((FAILED, "failed"), (INTERRUPTED, "interrupted"), (FINISHED, "finished"))


class Ledger:
    """Counters, flags and failures of one rank.

    Args:
        rank: this rank.
        size: number of ranks.
        goal: gradients of all ranks after which all stop, or None.
    """

    def __init__(self, rank: int, size: int, goal: int | None) -> None:
        self._changed = threading.Condition()
        self._rank = rank
        self._known = np.zeros(size, np.int64)
        self._total = 0
        self._own = 0
        self._earlier = 0
        """Of these, made before exchanges were counted: no lag comes of them."""
        self.goal = goal
        """Gradients of all ranks after which all stop, or None; never changes."""
        self._exchanges = 0
        self._waiting = 0
        self._losses = [0.0, 0.0]
        self._average: Any = None
        self._alone = False
        self.flags = 0
        self.failure: BaseException | None = None
        self.samples = 0
        self.idle_seconds = 0.0
        """Time the compute loop waited for the communication loop."""
        self.retired = False
        """Whether the compute loop has left; written by it alone."""

    @property
    def gradients(self) -> int:
        """Gradient events of this rank."""
        return self._own

    @property
    def total_gradients(self) -> int:
        """Gradient events of all ranks, as far as this one knows."""
        return self._total

    @property
    def stopped(self) -> bool:
        """Whether this rank should compute no more."""
        return self.flags != 0

    @property
    def stop_reason(self) -> str:
        """`finished`, `interrupted` or `failed`; a rank that just left has finished."""
        return next((text for bit, text in _REASONS if self.flags & bit), "finished")

    @property
    def losses(self) -> tuple[float, float]:
        """Sum and number of the finite losses reported so far."""
        with self._changed:
            return self._losses[0], self._losses[1]

    def count_gradient(self, loss: float | None, samples: int) -> None:
        """One more gradient event of this rank."""
        with self._changed:
            self.samples += samples
            if loss is not None and math.isfinite(loss):
                # A tensor would bring its graph along, and the precision of its type.
                self._losses[0] += float(loss)
                self._losses[1] += 1
            self._own += 1
            self._learn(self._rank, self._own)

    def known(self, rank: int) -> int:
        """Gradient events of `rank`, as far as this one knows."""
        return int(self._known[rank])

    @property
    def all_known(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The same of every rank, in a new array."""
        with self._changed:
            return self._known.astype(np.float64)

    def be_alone(self) -> None:
        """All others have died: there is nobody to exchange with, and no lag."""
        with self._changed:
            self._alone = True
            self._changed.notify_all()

    def state(self) -> dict[str, Any]:
        """This rank's own counts, for a checkpoint."""
        with self._changed:
            return {
                "gradients": self._own,
                "samples": self.samples,
                "losses": list(self._losses),
                "idle_seconds": self.idle_seconds,
                "earlier": self._earlier,
            }

    def restore(self, state: dict[str, Any], counts: Sequence[int]) -> None:
        """Go on from what `state` gave.

        Args:
            state: of this rank.
            counts: gradients of every rank at that time.
        """
        with self._changed:
            self._own, self.samples = state["gradients"], state["samples"]
            self._losses = list(state["losses"])
            self.idle_seconds = state["idle_seconds"]
            self._earlier = state.get("earlier", 0)
            self._known[:] = counts
            self._total = int(self._known.sum())
            self._check_goal()

    def count_exchanges_anew(self) -> None:
        """Exchanges are counted from here on: none is owed for gradients made so far."""
        with self._changed:
            self._earlier = self._own

    def learn(self, rank: int, gradients: int) -> None:
        """`rank` has made at least so many gradients."""
        if gradients > self._known[rank]:
            with self._changed:
                self._learn(rank, gradients)

    def learn_all(self, gradients: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Every rank has made at least so many gradients."""
        with self._changed:
            np.maximum(self._known, gradients.astype(np.int64), out=self._known)
            self._total = int(self._known.sum())
            self._check_goal()

    def raise_flags(self, flags: int) -> int:
        """Keep these bits from now on.

        Returns:
            Those that are new here.
        """
        if not flags & ~self.flags:
            return 0
        with self._changed:
            new = flags & ~self.flags
            self.flags |= flags
            if new:
                self._changed.notify_all()
            return new

    def fail(self, error: BaseException, flags: int = FAILED) -> None:
        """Keep the first failure; everything else follows from it."""
        with self._changed:
            if self.failure is None:
                self.failure = error
            self.flags |= flags
            self._changed.notify_all()

    def set_exchanges(self, exchanges: int) -> None:
        """So many were made; wakes a compute loop that waits for them."""
        self._exchanges = exchanges
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def lag(self, rate: float) -> float:
        """Exchanges that this rank's own gradients call for, less those it took part in.

        Own gradients, not time: a rank that computes freely while exchanges are scarce
        is the one that has to wait for them. Were it measured by time, which all ranks
        make pass together, the fastest would run away and the others wait for ever.

        Args:
            rate: exchanges for each gradient.
        """
        return rate * (self._own - self._earlier) - self._exchanges

    def wait_for_lag(self, limit: int, rate: float, seconds: float) -> None:
        """Wait while the lag is above `limit`, unless the run stops.

        Raises:
            DeadlineExceeded: no exchange was made for `seconds`.
        """
        if not self.lags(limit, rate):
            return
        began = time.perf_counter()
        with self._changed:
            self._waiting += 1  # threads of the caller that wait
            while self.lags(limit, rate) and self._moves(limit, rate, seconds):
                pass
            self._waiting -= 1
            self.idle_seconds += time.perf_counter() - began
        if self.lags(limit, rate):
            raise DeadlineExceeded(
                f"{self.lag(rate):g} exchanges were due for {seconds:g} s and none was "
                "made; a neighbour stands still (raise `deadline_seconds` or `max_lag`)"
            )

    def lags(self, limit: int, rate: float) -> bool:
        """Whether the compute loop should wait for the communication loop."""
        return self.lag(rate) > limit and not (self.flags or self._alone)

    def _moves(self, limit: int, rate: float, seconds: float) -> bool:
        """Wait for an exchange or a flag; whether one came in time. Holds the lock."""
        before = self._exchanges, self.flags
        # `set_lag` takes no lock to write: what it wrote may be in `before` already.
        return self._changed.wait_for(
            lambda: (
                (self._exchanges, self.flags) != before or not self.lags(limit, rate)
            ),
            seconds,
        )

    def put_average(self, average: Any) -> None:
        """An average of all ranks is ready; only the newest is kept."""
        with self._changed:
            self._average = average

    def take_average(self) -> Any:
        """The newest average not yet taken, or None."""
        if self._average is None:
            return None
        with self._changed:
            average, self._average = self._average, None
            return average

    def _learn(self, rank: int, gradients: int) -> None:
        gained = gradients - int(self._known[rank])
        if gained > 0:
            self._known[rank] = gradients
            self._total += gained
            self._check_goal()

    def _check_goal(self) -> None:
        if self.goal is not None and self._total >= self.goal:
            self.flags |= FINISHED
            self._changed.notify_all()
