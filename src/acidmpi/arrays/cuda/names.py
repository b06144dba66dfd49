"""How GPUs are called."""

from itertools import pairwise


def uuid_text(raw: bytes | None) -> str | None:
    """A GPU's UUID as `nvidia-smi -L` shows it, from its 16 bytes."""
    if raw is None or len(raw) < 16:
        return None
    digits = bytes(raw)[:16].hex()
    ends = (0, 8, 12, 16, 20, 32)
    parts = [digits[i:j] for i, j in pairwise(ends)]
    return "GPU-" + "-".join(parts)
