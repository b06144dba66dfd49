"""The options of `python -m acidmpi.doctor`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from acidmpi.config.options import above, at_least, check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """What is asked for, and how long anything may take."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What the ranks are to compute on; with `cuda`, a GPU that does not work is a
    failure."""

    transport: Literal["auto", "host", "staged", "device"] = "auto"
    """How messages are to travel; one that is named and does not work is a failure."""

    size_bytes: Annotated[int, at_least(1)] = 64 << 20
    """Of a message, and of a copy, whose bandwidth is measured."""

    json: bool = False
    """Print one JSON object instead of the page."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for another process may take."""

    def __post_init__(self) -> None:
        check_fields(self)
