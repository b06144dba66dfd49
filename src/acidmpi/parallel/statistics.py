"""What an averager tells of itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ParallelStatistics:
    """What one averager has done so far, on this rank."""

    steps: int
    """Steps finished."""

    buckets: int
    """Buckets of the step at hand."""

    messages: int
    """Messages of the compressor: sums, gathers and all-to-alls."""

    bytes_sent: int
    """Volume of these messages that each rank sends in the standard algorithms: see
    `parallel.messages.sent_bytes`."""

    seconds_compressing: float
    """Time spent in the compressor: packing, encoding, decoding, the mean."""

    seconds_waiting: float
    """Time that the caller spent in `finish`: what averaging costs beyond computation."""
