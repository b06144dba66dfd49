"""What `Worker` and `Gossip` have in common: an engine, and how callers see it."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from acidmpi.errors import ConfigError
from acidmpi.progress.closing import Closing
from acidmpi.worker.averaging import Average
from acidmpi.worker.engine import Engine
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.statistics import WorkerStatistics


class Participant(Closing, ABC):
    """One rank of a group that averages with one another; a context manager."""

    _engine: Engine

    @abstractmethod
    def close(self, error: BaseException | None = None) -> None:
        """Answer until all ranks have closed; what is left is the global average."""

    @property
    def engine(self) -> Engine:
        """The parts behind this object; for telemetry, tests and benchmarks."""
        return self._engine

    @property
    def finished(self) -> bool:
        """Whether the goal is reached or a rank asked all to stop."""
        return self._engine.finished

    @property
    def progress(self) -> float:
        """Share of `total_gradients` that is done, by all ranks, in [0, 1].

        Between heartbeats it is a forecast, which the next one may take back a little.
        """
        return self._engine.progress

    @property
    def total_gradients_done(self) -> int:
        """Gradient events of all ranks, as far as this one knows."""
        return self._engine.total_gradients

    @property
    def stop_reason(self) -> str:
        """finished, interrupted or failed."""
        return self._engine.stop_reason

    @property
    def clean(self) -> bool:
        """Whether MPI can be finalised: no operation was left pending."""
        return self._engine.clean

    def poll(self) -> None:
        """Let communication go on (`progress="inline"`); raise what went wrong."""
        self._engine.poll()

    def stop(self, reason: str = "interrupted") -> None:
        """Ask all ranks to stop: `finished` becomes true everywhere soon."""
        if reason != "interrupted":
            raise ConfigError(
                f"a run can only be stopped as 'interrupted', got {reason!r}"
            )
        self._engine.stop()

    def take_average(self) -> Average | None:
        """The newest average of all ranks not yet taken; on rank 0 only.

        Needs `average_every`. Parameters only: buffers are averaged at the end.
        """
        return self._engine.take_average()

    def statistics(self) -> WorkerStatistics:
        """What has happened so far."""
        site = self._engine.parts.state.site
        told = self._engine.statistics()
        return replace(told, device=site.name, device_uuid=site.uuid)


def make_options(options: dict[str, Any]) -> WorkerOptions:
    """Options from keywords.

    Raises:
        ConfigError: one of them does not exist or is not acceptable.
    """
    known = set(WorkerOptions.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise ConfigError(
                f"there is no option {name!r}; the options are {', '.join(sorted(known))}"
            )
    return WorkerOptions(**options)
