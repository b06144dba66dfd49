"""The events of one rank as JSON lines: `metrics-<rank>.jsonl`.

Guarantees:
- both loops of a rank may record at any time; a record costs them microseconds, because
  the disk is only touched by the writer's own thread;
- every line is one complete, valid JSON object (a number that is not finite is `null`),
  so that a run cut short at any moment leaves a readable file but for its last line;
- what was recorded reaches the file within a second, and all of it at `close()`.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Protocol, Self

from acidmpi.errors import DataError

SCHEMA = 1
"""Version of the format; every line carries it."""


class Metrics(Protocol):
    """What a rank's loops may record; `MetricsWriter` is the one that keeps it.

    In all of them, `seconds` counts from the start of the run, `time` is in units of a
    mean gradient and `gradients` is this rank's own count.
    """

    def gradient(
        self, seconds: float, time: float, gradients: int, loss: float | None, lr: float
    ) -> None:
        """Record a gradient event."""
        ...

    def exchange(
        self,
        seconds: float,
        time: float,
        gradients: int,
        peer: int,
        sent_bytes: int,
        exchange_seconds: float,
    ) -> None:
        """Record a completed exchange."""
        ...

    def heartbeat(
        self,
        seconds: float,
        time: float,
        gradients: int,
        total_gradients: int,
        comm_rate: float | None,
        consensus_distance: float | None,
    ) -> None:
        """Record what a heartbeat brought."""
        ...

    def evaluation(
        self,
        seconds: float,
        time: float,
        gradients: int,
        test_loss: float | None,
        test_accuracy: float | None,
    ) -> None:
        """Record an evaluation of the averaged model."""
        ...

    def death(
        self, seconds: float, time: float, gradients: int, peer: int, last: str
    ) -> None:
        """Record that a rank has died, and what it did last as far as is known here."""
        ...

    def recovery(
        self,
        seconds: float,
        time: float,
        gradients: int,
        peer: int,
        recovered_seconds: float,
    ) -> None:
        """Record the first exchange after the death of `peer`, a former neighbour."""
        ...


def json_number(value: float | None) -> str:
    """`value` as JSON; what JSON cannot say (NaN, infinities) becomes `null`."""
    if value is None or not math.isfinite(value):
        return "null"
    return repr(float(value))


def _head(kind: str, seconds: float, time: float, gradients: int) -> str:
    return (
        f'{{"schema": {SCHEMA}, "kind": "{kind}", "seconds": {seconds:.6f}, '
        f'"time": {json_number(time)}, "gradients": {gradients:d}'
    )


class MetricsWriter:
    """Appends the records of one rank to a file.

    Args:
        path: the file; it is created, or emptied.
        block_seconds: how long a record may wait in memory.
        append: go on behind the records that are there.

    Raises:
        DataError: the file cannot be opened.
    """

    def __init__(
        self, path: Path, block_seconds: float = 0.5, *, append: bool = False
    ) -> None:
        self._path = path
        self._block_seconds = block_seconds
        self._lines: list[str] = []
        self._lock = Lock()
        self._wake = Event()
        self._closing = False
        self._failure: OSError | None = None
        try:
            self._file = path.open("a" if append else "w", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error
        self._thread = Thread(target=self._run, name="acidmpi-metrics", daemon=True)
        self._thread.start()

    def gradient(
        self, seconds: float, time: float, gradients: int, loss: float | None, lr: float
    ) -> None:
        """Record a gradient event."""
        head = _head("gradient", seconds, time, gradients)
        self._add(f'{head}, "loss": {json_number(loss)}, "lr": {json_number(lr)}}}\n')

    def exchange(
        self,
        seconds: float,
        time: float,
        gradients: int,
        peer: int,
        sent_bytes: int,
        exchange_seconds: float,
    ) -> None:
        """Record a completed exchange."""
        self._add(
            f"{_head('exchange', seconds, time, gradients)}"
            f', "peer": {peer:d}, "sent_bytes": {sent_bytes:d}'
            f', "exchange_seconds": {json_number(exchange_seconds)}}}\n'
        )

    def heartbeat(
        self,
        seconds: float,
        time: float,
        gradients: int,
        total_gradients: int,
        comm_rate: float | None,
        consensus_distance: float | None,
    ) -> None:
        """Record what a heartbeat brought."""
        self._add(
            f"{_head('heartbeat', seconds, time, gradients)}"
            f', "total_gradients": {total_gradients:d}'
            f', "comm_rate": {json_number(comm_rate)}'
            f', "consensus_distance": {json_number(consensus_distance)}}}\n'
        )

    def evaluation(
        self,
        seconds: float,
        time: float,
        gradients: int,
        test_loss: float | None,
        test_accuracy: float | None,
    ) -> None:
        """Record an evaluation of the averaged model."""
        self._add(
            f"{_head('evaluation', seconds, time, gradients)}"
            f', "test_loss": {json_number(test_loss)}'
            f', "test_accuracy": {json_number(test_accuracy)}}}\n'
        )

    def death(
        self, seconds: float, time: float, gradients: int, peer: int, last: str
    ) -> None:
        """Record that a rank has died, and what it did last as far as is known here."""
        head = _head("death", seconds, time, gradients)
        self._add(f'{head}, "peer": {peer:d}, "last": {json.dumps(last)}}}\n')

    def recovery(
        self,
        seconds: float,
        time: float,
        gradients: int,
        peer: int,
        recovered_seconds: float,
    ) -> None:
        """Record the first exchange after the death of `peer`, a former neighbour."""
        self._add(
            f'{_head("recovery", seconds, time, gradients)}, "peer": {peer:d}'
            f', "recovered_seconds": {json_number(recovered_seconds)}}}\n'
        )

    def flush(self) -> None:
        """Have what was recorded so far written at once; does not wait for it."""
        self._wake.set()

    def close(self) -> None:
        """Write what is left and close the file; a second call does nothing.

        Raises:
            DataError: some records could not be written, for example on a full disk.
        """
        self._closing = True
        self._wake.set()
        self._thread.join()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise self._cannot_write(failure) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    def _take(self) -> list[str]:
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._block_seconds)
            self._wake.clear()
            self._attempt(self._write_block)
        self._attempt(self._write_block)
        self._attempt(self._file.close)

    def _write_block(self) -> None:
        lines = self._take()
        if lines:
            self._file.write("".join(lines))
            self._file.flush()

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run `action`; keep its first failure for `close`, which has a caller."""
        try:
            action()
        except OSError as error:
            self._failure = self._failure or error

    def _cannot_write(self, error: OSError) -> DataError:
        return DataError(
            f"metrics cannot be written to {self._path}: {error.strerror}; "
            "choose another folder with --output"
        )


def forget_after(path: Path, gradients: int) -> None:
    """Remove from a file of metrics what came after so many gradients, and torn lines.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _is_before(line, gradients)]
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"metrics cannot be written to {path}: {error.strerror}; choose another "
            "folder with --output"
        ) from error


def _is_before(line: str, gradients: int) -> bool:
    try:
        return int(json.loads(line)["gradients"]) <= gradients
    except (ValueError, KeyError, TypeError):
        return False
