"""How a waiting rank spends its time: waits that end, and who advances a loop."""

from acidmpi.progress.waits import (
    Backoff,
    Deadline,
    Pace,
    Steps,
    available_cores,
    until,
)

__all__ = ["Backoff", "Deadline", "Pace", "Steps", "available_cores", "until"]
