"""Whether a device's gradients were finite: decided on the device, learnt later.

For each gradient event the compute loop queues, in its own turn: a word is cleared, the
gradients are searched, the update is applied unless the word says otherwise, and the word
is copied to page-locked memory with an event behind the copy. Nobody waits. The compute
loop asks that event at later steps and hears the verdict then: `LATE` gradient events
later at the latest, for there are so many words. Only a loop that is so far ahead of its
device waits, and the device has that many steps of work meanwhile.

Owned by the compute loop.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from acidmpi.arrays.accelerator import Accelerator, Event
from acidmpi.arrays.flat import Array
from acidmpi.clocks import WallClock
from acidmpi.kernels.cuda.finite import position
from acidmpi.kernels.protocol import GuardedKernels, Kernels
from acidmpi.progress import Deadline

LATE = 8
"""Most gradient events whose verdicts are not heard yet."""

WORD_SECONDS = 300.0
LOOK_SECONDS = 20e-6


class Span(NamedTuple):
    """A piece of the gradients, and the position of its first number in all of them."""

    gradient: Array
    start: int


class Verdict(NamedTuple):
    """What became of one gradient event."""

    about: Any
    """What the caller gave for it."""

    position: int | None
    """Of the first number that is not finite; None if the gradient was applied."""


class Word(NamedTuple):
    """What the device notes its verdict in."""

    place: Array
    """In its memory."""

    told: Array
    """The copy in the host's."""

    unless: Kernels
    """Those that heed it."""

    used: bool = True
    """Whether it may be anything but zero."""


class Verdicts:
    """Decides on the device, and tells the host later.

    Args:
        accelerator: the device.
        kernels: its own.
        late: most verdicts that are on their way.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        kernels: GuardedKernels,
        late: int = LATE,
    ) -> None:
        self._device, self._kernels = accelerator, kernels
        words = accelerator.empty(late, np.uint64)
        told = accelerator.pinned(8 * late).view(np.uint64)
        places = [slice(k, k + 1) for k in range(late)]
        self._free = deque(
            Word(words[k], told[k], kernels.unless(words[k])) for k in places
        )
        self._coming: deque[tuple[Event, Word, Any]] = deque()

    def apply(
        self, spans: Sequence[Span], about: Any, update: Callable[[Kernels], None]
    ) -> None:
        """Queue an update, applied where all of `spans` is finite; in a compute turn.

        `heard` must have been called since the last time.

        Args:
            spans: what is searched.
            about: comes back with the verdict.
            update: queues the update with the kernels it is given.
        """
        device, stream = self._device, self._device.caller()
        word = self._free.popleft()
        if word.used:
            device.clear(word.place, stream)
        for gradient, start in spans:
            self._kernels.find_nonfinite(gradient, word.place, start)
        update(word.unless)
        device.copy(word.told, word.place, stream)
        self._coming.append((device.record(stream), word, about))

    def heard(self) -> list[Verdict]:
        """Those that have come, in order; waits only if there is no word left.

        Raises:
            DeadlineExceeded: the device does nothing any more.
        """
        if not self._free:
            self._wait(self._coming[0][0])
        verdicts = []
        while self._coming and self._device.done(self._coming[0][0]):
            verdicts.append(self._take())
        return verdicts

    def rest(self) -> list[Verdict]:
        """All that have not been heard, waited for; not to be called in a turn.

        Raises:
            DeadlineExceeded: the device does nothing any more.
        """
        verdicts = []
        while self._coming:
            self._wait(self._coming[0][0])
            verdicts.append(self._take())
        return verdicts

    def _take(self) -> Verdict:
        _, word, about = self._coming.popleft()
        found = position(int(word.told[0]))
        self._free.append(word._replace(used=found is not None))
        return Verdict(about, found)

    def _wait(self, event: Event) -> None:
        deadline = Deadline(WORD_SECONDS, WallClock(), "a step of the GPU")
        while not self._device.done(event):
            deadline.check()
            time.sleep(LOOK_SECONDS)
