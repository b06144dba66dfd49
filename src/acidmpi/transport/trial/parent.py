"""Start the processes of a trial, wait for them with a deadline, judge what they found.

They are new programs, not copies of this process: whatever happens to them, a crash
included, happens to them alone. They are in a session of their own, have no variable of
this job's launcher, and end by themselves.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from acidmpi.mpi.loaded import mpiexec_beside
from acidmpi.transport.trial.environment import outside_of_the_job

MODULE = "acidmpi.transport.trial.child"
PATIENCE_SECONDS = 3.0
"""How long processes that are asked to end may take."""

LOOK_SECONDS = 0.02
LONGEST_TEXT = 300


@dataclass(frozen=True)
class Verdict:
    """What a trial has shown."""

    moved: bool
    """The bytes have arrived and are right."""

    text: str
    """How it was tried, and what went wrong."""

    output: str = ""
    """All that the processes printed."""

    tried: bool = True
    """False where MPI did not even start in the processes: nothing is known then."""


def trial(
    kind: str = "cuda",
    device: int = 0,
    seconds: float = 60.0,
    launcher: Path | None = None,
    alone: bool = False,
    program: Sequence[str] = ("-m", MODULE),
    variables: Mapping[str, str] | None = None,
) -> Verdict:
    """Let other processes exchange bytes from device memory and compare them.

    Two processes if this MPI's launcher is found beside the library, because two
    processes do what ranks will do; else one that sends to itself.

    Args:
        kind: of memory, `cuda` or `host`.
        device: number of the GPU; the second process takes the next one, if there is one.
        seconds: how long it may take in all.
        launcher: an `mpiexec`; by default the one beside the MPI library.
        alone: do not look for one.
        program: what Python runs.
        variables: of the environment, beside those of this process.
    """
    launcher = None if alone else launcher or mpiexec_beside()
    began = time.monotonic()
    attempt = partial(_attempt, kind, device, program, variables or {})
    found = attempt(launcher, seconds)
    left = seconds - (time.monotonic() - began)
    if found is None and left > 1.0:
        found = attempt(None, left)
    if found is None:
        text = f"{launcher} starts no pair of this MPI's processes"
        return Verdict(False, text, tried=False)
    return found


def _attempt(
    kind: str,
    device: int,
    program: Sequence[str],
    variables: Mapping[str, str],
    launcher: Path | None,
    seconds: float,
) -> Verdict | None:
    """One trial; None if the launcher starts processes that are not a pair."""
    ranks = 1 if launcher is None else 2
    start = [] if launcher is None else [str(launcher), "-n", str(ranks)]
    own = max(seconds - PATIENCE_SECONDS, 0.5 * seconds)
    with tempfile.TemporaryDirectory(prefix="acidmpi-trial-") as folder:
        words = [folder, kind, str(device), str(own)]
        command = [*start, sys.executable, *program, *words]
        output = Path(folder, "output")
        try:
            status = _run(command, output, variables, seconds)
        except OSError as error:
            text = f"no process could be started ({error})"
            return Verdict(False, text, tried=False)
        started, found = _read(folder, "*.started"), _read(folder, "*.json")
        if launcher is not None and started != [ranks] * len(started or [0]):
            return None
        text = output.read_text(errors="replace")
        verdict = _judge(status, found, ranks, _last_line(text))
        return replace(verdict, output=text, tried=bool(started))


def _read(folder: str, pattern: str) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob(pattern))]


def _run(
    command: Sequence[str], output: Path, variables: Mapping[str, str], seconds: float
) -> int | None:
    """The exit status; None if it took too long."""
    with output.open("w") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=outside_of_the_job(os.environ) | dict(variables),
            start_new_session=True,
        )
        end = time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(LOOK_SECONDS)
            return process.poll()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then force; a launcher passes the wish on to its ranks."""
    if process.poll() is not None:
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _judge(
    status: int | None, found: list[Mapping[str, Any]], ranks: int, last: str
) -> Verdict:
    how = "two processes" if ranks == 2 else "a process that sent to itself"
    for one in found:
        if not one["tried"]:
            return Verdict(False, f"{how} could not try it: {one['fault']}")
        if one["fault"]:
            return Verdict(False, f"{how} tried it: of {one['fault']}")
    if status is None:
        return Verdict(False, f"{how} tried it and hung")
    if status or len(found) != ranks:
        return Verdict(False, f"{how} tried it and ended {_ending(status)}{last}")
    return Verdict(True, f"{how} moved bytes of device memory, and they were right")


def _ending(status: int) -> str:
    number = -status if status < 0 else status - 128
    with suppress(ValueError):
        return f"by {signal.Signals(number).name}"
    return f"with status {status}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    told = [line for line in lines if line.strip("-=* ")]
    return f": {told[-1][:LONGEST_TEXT]}" if told else ""
