"""A device that works at once, in host memory: no queues, every event has passed.

For code around a device that is not about order; `support.streams` is for that.
"""

from contextlib import nullcontext

import numpy as np


class InstantDevice:
    """See `acidmpi.arrays.accelerator.Accelerator`."""

    name = "instant"

    def __init__(self, uuid="GPU-instant"):
        self.uuid = uuid
        self.copied_bytes = 0
        self._streams = 0

    def caller(self):
        return 0

    def stream(self):
        self._streams += 1
        return self._streams

    def on(self, stream):
        return nullcontext()

    def record(self, stream):
        return stream

    def wait(self, stream, event):
        pass

    def done(self, event):
        return True

    def empty(self, size, dtype):
        return np.empty(size, dtype)

    def clear(self, array, stream):
        array[:] = 0

    def copy(self, destination, origin, stream):
        assert destination.nbytes == origin.nbytes
        np.copyto(destination, origin)
        self.copied_bytes += origin.nbytes

    def pinned(self, size_bytes):
        return np.zeros(size_bytes, np.uint8)

    def gather(self, array, where):
        return array[where]
