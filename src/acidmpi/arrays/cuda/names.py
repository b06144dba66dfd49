"""How GPUs are called."""

import ctypes
from itertools import pairwise


def uuid_of(number: int) -> str | None:
    """The UUID of a GPU that this process sees, or None where the driver tells none.

    The driver is asked, because what CuPy says ends before the first zero byte.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    refused = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), number)
        or driver.cuDeviceGetUuid_v2(raw, device)
    )
    return None if refused else uuid_text(bytes(raw))


def uuid_text(raw: bytes) -> str:
    """A GPU's UUID as `nvidia-smi -L` shows it, from its 16 bytes."""
    digits = raw.hex()
    ends = (0, 8, 12, 16, 20, 32)
    parts = [digits[i:j] for i, j in pairwise(ends)]
    return "GPU-" + "-".join(parts)
