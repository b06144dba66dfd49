"""What the training loop asks of any method, whoever waits for whom in it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from acidmpi.telemetry.stalls import Picture
from acidmpi.telemetry.summary import StopReason
from acidmpi.worker.membership import Death

Scores = tuple[float, float | None]
"""Loss and, where there is one, accuracy on the test set."""

Average = tuple[int, Sequence[NDArray[Any]]]
"""Gradients of all ranks so far, and arrays of the average taken then."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one rank tells of a run; `None` or zero is what its method does not have."""

    gradients: int
    """Gradient events of this rank."""

    total_gradients: int
    """Gradient events of all ranks, as far as this one knows."""

    bytes_sent: int
    idle_seconds: float
    """How long the computation waited for communication."""

    exchanges: int = 0
    control_messages: int = 0
    comm_rate_measured: float | None = None
    chi_1: float | None = None
    chi_2: float | None = None
    eta: float | None = None
    alpha_tilde: float | None = None
    transport: str | None = None
    device: str = "cpu"
    """Where this rank computes, and which one of its kind that is."""
    device_uuid: str | None = None
    consensus_distance: float | None = None
    mean_drift: float | None = None
    train_loss: float | None = None
    deaths: tuple[Death, ...] = ()
    """Ranks known to have died."""


class Course(Protocol):
    """How far all ranks are, and how they end; entered while gradients are computed.

    It belongs to the training loop's thread, but for `stop` and `statistics`, which may
    be called from any.
    """

    @property
    def finished(self) -> bool:
        """Whether this rank should compute no more gradients."""
        ...

    @property
    def progress(self) -> float:
        """Share of the total gradients that is done, 0 to 1."""
        ...

    @property
    def stop_reason(self) -> StopReason:
        """Why it ended; once left, the same on all ranks."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this rank shows and keeps the results: rank 0, or its successor."""
        ...

    @property
    def told(self) -> bool:
        """Whether all ranks know of the end."""
        ...

    @property
    def clean(self) -> bool:
        """Whether MPI can be finalised: no operation was left pending."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End with all ranks; without an error the parameters are their average."""
        ...

    def stop(self) -> None:
        """Ask all ranks to stop."""
        ...

    def take_average(self) -> Average | None:
        """The newest average not yet taken, on rank 0; elsewhere None."""
        ...

    def record(self, scores: Scores) -> None:
        """Put an evaluation into this rank's metrics."""
        ...

    def watch_stalls(self, tell: Callable[[Picture], None]) -> None:
        """Let `tell` show who waits for whom when something takes too long."""
        ...

    def statistics(self) -> Figures:
        """What has happened so far."""
        ...


class Trainer(Protocol):
    """One rank's model, and the course that its training takes."""

    @property
    def course(self) -> Course:
        """How all ranks go on together."""
        ...

    def step(self, rate: float) -> float:
        """One gradient event at the learning rate `rate`; returns the loss."""
        ...

    def mourn(self, dead: Collection[int]) -> None:
        """These ranks have died: what is evaluated does without them."""
        ...

    def scores(self) -> Scores:
        """Of the parameters as they are."""
        ...

    def scores_of(self, average: Average) -> Scores:
        """Of an average that the course has given; the parameters are left alone."""
        ...
