"""The options of `python -m acidmpi.report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from acidmpi.config.options import above, between, check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """A report.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds.
    """

    output: Path = Path("report")
    """Folder for report.html, table.md and the pictures; files of an earlier report in
    it are replaced."""

    title: str = "Training runs"
    """Stands above the page."""

    target_loss: Annotated[float | None, above(0)] = None
    """Adds to the table how many seconds each run took to this training loss."""

    target_accuracy: Annotated[float | None, between(0, 1)] = None
    """Adds how many seconds each run took to this test accuracy, from 0 to 1; for runs
    with --evaluate-every."""

    def __post_init__(self) -> None:
        check_fields(self)
