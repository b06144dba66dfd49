"""What differs between ranks that step together: parameters and buffers, averaged at times.

They may lie on a device. Averages are made in host memory, and only they are kept there,
so that the device holds no second copy.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import Accelerator, here, is_on_device, to_host
from acidmpi.compression.protocol import Sum
from acidmpi.parallel.messages import sent_bytes
from acidmpi.train.news import squared_distance

Array = NDArray[Any]


@final
class OwnArrays:
    """One rank's; for the training loop's thread.

    Args:
        parameters: live arrays of one dimension.
        buffers: the same, of any shape, but not counted in the distance between ranks.
        size: number of ranks.
        accelerator: the device that holds them; None is host memory.
        mean: replaces arrays, in either memory, by their means over ranks; collective.
    """

    def __init__(
        self,
        parameters: Sequence[Array],
        buffers: Sequence[Array],
        size: int,
        accelerator: Accelerator | None,
        mean: Callable[[list[Array]], None],
    ) -> None:
        self.parameters = list(parameters)
        self._all = [*parameters, *buffers]
        self._size = size
        self._accelerator = accelerator
        self._mean = mean
        self.bytes_sent = 0
        """By this rank, for averages."""

    def average(self) -> None:
        """Replace all by their means; collective."""
        with here(self._accelerator):
            self._replace(self._all)

    def averaged_copies(self) -> list[Array]:
        """The means, in host memory; nothing else changes. Collective."""
        with here(self._accelerator):
            copies = [_copy(array) for array in self._all]
        self._replace(copies)
        return copies

    def average_at_last(self) -> float:
        """Replace all by their means; returns this rank's ‖x_i − x̄‖² before that."""
        with here(self._accelerator):
            before = [_copy(x) for x in self.parameters]
            self._replace(self._all)
            both = zip(self.parameters, before, strict=True)
            return sum((squared_distance(to_host(x), b) for x, b in both), 0.0)

    def _replace(self, arrays: list[Array]) -> None:
        """Their volume counts."""
        if arrays:
            self._mean(arrays)
            self.bytes_sent += sum(sent_bytes(Sum(a), self._size) for a in arrays)


def _copy(array: Array) -> Array:
    """In host memory, and always new."""
    copied: Array = to_host(array) if is_on_device(array) else np.array(array)
    return copied
