"""The CUDA driver, called through ctypes.

A trial has to start fast, and whoever looks for GPUs must not need the packages that use
them.
"""

import ctypes
from dataclasses import dataclass
from uuid import UUID

NAME_BYTES = 256
OF_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, and MINOR."""


class NoDevice(Exception):
    """There is no device, or CUDA refuses; the text says why."""


@dataclass(frozen=True)
class GpuDevice:
    """One GPU that this process sees."""

    name: str
    uuid: str
    """As `nvidia-smi -L` prints it."""

    memory_bytes: int
    capability: tuple[int, int]


class Driver:
    """The driver, started.

    Raises:
        NoDevice: there is none, or it does not start.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise NoDevice(f"there is no CUDA driver here ({error})") from error
        self.call("cuInit", 0)

    @property
    def version(self) -> str:
        """The newest CUDA that it knows."""
        number = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    @property
    def count(self) -> int:
        """How many GPUs this process sees."""
        number = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(number))
        return number.value

    def enter(self, device: int) -> None:
        """Make the primary context of a GPU current in this thread.

        Args:
            device: its number, taken modulo their count.

        Raises:
            NoDevice: there is none, or it gives no context.
        """
        handle, context = self._handle(device), ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        self.call("cuCtxSetCurrent", context)

    def devices(self) -> list[GpuDevice]:
        """All that this process sees; none of them is given work."""
        return [self._describe(self._handle(k)) for k in range(self.count)]

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver.

        Raises:
            NoDevice: it reports an error.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            raise NoDevice(f"{name}: {self._text(status)}")

    def _handle(self, device: int) -> ctypes.c_int:
        count, handle = self.count, ctypes.c_int()
        if not count:
            raise NoDevice("CUDA sees no device")
        self.call("cuDeviceGet", ctypes.byref(handle), device % count)
        return handle

    def _describe(self, handle: ctypes.c_int) -> GpuDevice:
        name = ctypes.create_string_buffer(NAME_BYTES)
        uuid = (ctypes.c_ubyte * 16)()
        memory = ctypes.c_size_t()
        self.call("cuDeviceGetName", name, NAME_BYTES, handle)
        self.call("cuDeviceGetUuid_v2", uuid, handle)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        major, minor = (self._attribute(number, handle) for number in OF_CAPABILITY)
        return GpuDevice(
            name.value.decode(),
            f"GPU-{UUID(bytes=bytes(uuid))}",
            memory.value,
            (major, minor),
        )

    def _attribute(self, number: int, handle: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, handle)
        return value.value

    def _text(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(status, ctypes.byref(text))
        return f"error {status} ({(text.value or b'unknown').decode()})"
