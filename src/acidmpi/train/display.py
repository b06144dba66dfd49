"""What a run shows: a bar on a terminal, plain lines elsewhere, a table at last.

Only rank 0 shows anything; the others hold a `Silence`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, final

from acidmpi.clocks import Clock
from acidmpi.config.launched import give_up

Row = tuple[str, str]
BAR_SECONDS = 0.5
OPEN_MPI_VARIABLE = "OMPI_COMM_WORLD_RANK"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a run stands."""

    seconds: float
    gradients: int
    """Of all ranks together."""

    total_gradients: int
    loss: float | None
    comm_rate: float | None
    consensus_distance: float | None

    @property
    def share(self) -> float:
        """Of the work that is done, 0 to 1."""
        return min(1.0, self.gradients / self.total_gradients)

    def figures(self) -> str:
        """Everything but the share, on one line."""
        return (
            f"{self.seconds:7.1f} s  {self.gradients}/{self.total_gradients} gradients"
            f"  loss {number(self.loss)}  rate {number(self.comm_rate)}"
            f"  distance {number(self.consensus_distance)}"
        )


class Display(Protocol):
    """Shows a run to somebody."""

    def due(self) -> bool:
        """Whether it is time to call `moment` again."""
        ...

    def moment(self, moment: Moment) -> None:
        """Show where the run stands."""
        ...

    def line(self, text: str) -> None:
        """Show one line for good."""
        ...

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Show the results."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; a second call does nothing."""
        ...


@final
class Silence:
    """Shows nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def moment(self, moment: Moment) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _Interval:
    """Tells when enough seconds have passed since it last said so."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = clock.now() + seconds

    def over(self) -> bool:
        now = self._clock.now()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


@final
class Lines:
    """Plain lines, for files and pipes.

    Args:
        out: where they go.
        seconds: between two lines of progress.
        clock: where time comes from.
    """

    def __init__(self, out: TextIO, seconds: float, clock: Clock) -> None:
        self._out = out
        self._interval = _Interval(seconds, clock)

    def due(self) -> bool:
        """Once in the interval."""
        return self._interval.over()

    def moment(self, moment: Moment) -> None:
        """One line."""
        self.line(f"{moment.share:4.0%} {moment.figures()}")

    def line(self, text: str) -> None:
        """One line, at once; that nobody takes it ends no run."""
        try:
            print(text, file=self._out, flush=True)
        except OSError as error:
            give_up(
                self._out,
                f"warning: standard output cannot be written: {error.strerror}; the "
                "run goes on and shows nothing more, its files tell all",
            )

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Names and values in two columns."""
        width = max(len(name) for name, _ in rows)
        self.line(title)
        for name, value in rows:
            self.line(f"  {name:<{width}}  {value}")

    def close(self) -> None:
        """Nothing to undo."""


@final
class Bar:
    """A progress bar that stays in its place, for terminals.

    Args:
        out: the terminal.
        clock: where time comes from.
    """

    def __init__(self, out: TextIO, clock: Clock) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(file=out, force_terminal=True)
        self._progress = Progress(
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            auto_refresh=False,
        )
        self._task: Any = self._progress.add_task("starting", total=1.0)
        self._interval = _Interval(BAR_SECONDS, clock)
        self._progress.start()

    def due(self) -> bool:
        """Often enough to look alive."""
        return self._interval.over()

    def moment(self, moment: Moment) -> None:
        """Move the bar."""
        self._progress.update(
            self._task, completed=moment.share, description=moment.figures()
        )
        self._progress.refresh()

    def line(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """A table with a frame, below what was the bar."""
        from rich.table import Table

        self.close()
        table = Table(title=title, show_header=False)
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def close(self) -> None:
        """Let the bar stand as it is."""
        self._progress.stop()


@final
class Heir:
    """What a rank shows from the moment on when it is the lowest that lives.

    Args:
        make: makes the real display.
        leads: whether this rank shows anything by now; may be replaced.
    """

    def __init__(self, make: Callable[[], Display], leads: Callable[[], bool]) -> None:
        self._make = make
        self.leads = leads
        self._shown: Display | None = None

    def due(self) -> bool:
        """As the real one, once this rank leads."""
        return self._real.due()

    def moment(self, moment: Moment) -> None:
        """As the real one."""
        self._real.moment(moment)

    def line(self, text: str) -> None:
        """As the real one."""
        self._real.line(text)

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """As the real one."""
        self._real.table(title, rows)

    def close(self) -> None:
        """As the real one, if there is one."""
        if self._shown is not None:
            self._shown.close()

    @property
    def _real(self) -> Display:
        if self._shown is None and self.leads():
            self._shown = self._make()
        return self._shown or Silence()


def make_display(rank: int, seconds: float, clock: Clock, out: TextIO) -> Display:
    """What `rank` shows on `out`, usually its standard output."""
    if rank != 0:
        return Silence()
    return Bar(out, clock) if is_terminal(out) else Lines(out, seconds, clock)


def is_terminal(out: TextIO) -> bool:
    """Whether a person is at the other end.

    Open MPI gives every rank a pseudo-terminal, whatever becomes of its output; there
    the launcher's own output, which is the parent process's, tells.
    """
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        return False
    if out is not sys.stdout or OPEN_MPI_VARIABLE not in os.environ:
        return True
    try:
        parent = os.readlink(f"/proc/{os.getppid()}/fd/1")  # noqa: PTH115 - not a file
    except OSError:
        return True
    return parent.startswith(("/dev/pts/", "/dev/tty", "/dev/console"))


def number(value: float | None) -> str:
    """Four digits, or a dash for what is not known."""
    return "-" if value is None or value != value else f"{value:.4g}"
