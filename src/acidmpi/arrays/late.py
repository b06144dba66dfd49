"""Numbers that a device computes, read one later: so the host never waits for the last.

Whoever reads each number at once, as `float(loss)` does, waits until the device has nothing
left to do, and the device then waits for the host to give it more.
"""

from acidmpi.arrays.accelerator import Accelerator
from acidmpi.arrays.device_site import Flying, fly
from acidmpi.arrays.flat import Array


class Late:
    """Owned by the thread that computes.

    Args:
        accelerator: the device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._coming: Flying | None = None

    def swap(self, array: Array) -> float | None:
        """Begin to read `array`, and give what it held at the call before.

        Args:
            array: one number, as the caller's stream will have written it.

        Returns:
            None the first time.

        Raises:
            DeadlineExceeded: the device does not finish the number before.
        """
        device, before = self._accelerator, self._coming
        self._coming = fly(device, array, device.caller())
        return None if before is None else float(before.values()[0])
