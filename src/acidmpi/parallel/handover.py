"""Where the compute side and the communication loop of one averager meet.

Everything here is under one lock. Gradients belong to the loop from `put` until the step
is over. A failure is kept for good: whoever comes later gets it, too.
"""

import math
import threading
from collections.abc import Sequence

from acidmpi.arrays.accelerator import Event, is_writable
from acidmpi.compression.protocol import Array, Spec
from acidmpi.errors import ConfigError
from acidmpi.parallel.buckets import Bucket

MOST_NAMED = 5
"""Missing parameters that an error names."""


class Handover:
    """Gradients of the step at hand, and how far it is.

    Args:
        specs: all parameters.
        buckets: those of the first step.
    """

    def __init__(self, specs: Sequence[Spec], buckets: Sequence[Bucket]) -> None:
        self._specs = specs
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._ended = False
        self.awaited = False
        """Whether the caller waits for the mean."""
        self.step = 0
        """Number of the step at hand."""
        self._over = False
        self.begin(0, buckets)

    def begin(self, step: int, buckets: Sequence[Bucket]) -> None:
        """Gradients of step number `step` may come."""
        with self._lock:
            self.step = step
            self._over = False
            self._gradients: list[Array | None] = [None] * len(self._specs)
            self._marks: list[Event | None] = [None] * len(self._specs)
            self._count = 0
            self._bucket_of = {
                i: b for b, cut in enumerate(buckets) for i in cut.indices
            }
            self._missing = [len(cut.indices) for cut in buckets]

    def finish(self) -> None:
        """All gradients of this step hold the mean: they are the caller's again."""
        with self._lock:
            self._over = True

    @property
    def failure(self) -> BaseException | None:
        """What ended this averager, if something did."""
        return self._failure

    @property
    def count(self) -> int:
        """Gradients of this step so far."""
        return self._count

    def check(self) -> None:
        """Raise what has failed."""
        if self._failure is not None:
            raise self._failure

    def fail(self, error: BaseException) -> BaseException:
        """Keep the first failure, and return it."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            return self._failure

    def end(self) -> None:
        """No gradients will come any more; the loop may end."""
        with self._lock:
            self._ended = True

    @property
    def ended(self) -> bool:
        """Whether the caller has closed."""
        return self._ended

    def put(self, index: int, gradient: Array, mark: Event | None = None) -> bool:
        """Hand a gradient over; whether its bucket is complete with it.

        Args:
            index: number of the parameter.
            gradient: belongs to the loop from here on.
            mark: the event behind which a device has made it; see `parallel.lanes`.

        Raises:
            ConfigError: it does not fit, or it came before.
        """
        with self._lock:
            self.check()
            self._check_fits(index, gradient)
            self._gradients[index] = gradient
            self._marks[index] = mark
            self._count += 1
            bucket = self._bucket_of[index]
            self._missing[bucket] -= 1
            return self._missing[bucket] == 0

    def complete(self, bucket: int) -> bool:
        """Whether all gradients of a bucket are here."""
        with self._lock:
            return self._missing[bucket] == 0

    def take(self, indices: Sequence[int]) -> list[Array]:
        """The gradients of a complete bucket."""
        with self._lock:
            return [g for i in indices if (g := self._gradients[i]) is not None]

    def marks(self, indices: Sequence[int]) -> list[Event | None]:
        """What the gradients of a complete bucket were marked with."""
        with self._lock:
            return [self._marks[i] for i in indices]

    def check_all_here(self) -> None:
        """Raise `ConfigError` unless every parameter's gradient was handed over."""
        with self._lock:
            missing = [i for i, g in enumerate(self._gradients) if g is None]
        if missing:
            named = ", ".join(map(str, missing[:MOST_NAMED]))
            more = ", …" if len(missing) > MOST_NAMED else ""
            raise ConfigError(
                "finish() needs the gradient of every parameter, missing are those of "
                f"number {named}{more}; hand over zeros where there is no gradient"
            )

    @property
    def over(self) -> bool:
        """Whether this step is over, or never will be."""
        return self._over or self._failure is not None

    def _check_fits(self, index: int, gradient: Array) -> None:
        if not 0 <= index < len(self._specs):
            raise ConfigError(
                f"there are {len(self._specs)} parameters, got the gradient of number "
                f"{index}"
            )
        spec = self._specs[index]
        size = math.prod(spec.shape)
        if self._gradients[index] is not None:
            raise ConfigError(
                f"a gradient is final once per step, that of parameter {index} came twice; "
                "call finish() between two steps"
            )
        if (gradient.shape, gradient.dtype) != ((size,), spec.dtype) or not (
            gradient.flags.c_contiguous and is_writable(gradient)
        ):
            raise ConfigError(
                f"the gradient of parameter {index} must be a writable contiguous array "
                f"of shape ({size},) and type {spec.dtype}, got {gradient.shape} "
                f"and {gradient.dtype}"
            )
