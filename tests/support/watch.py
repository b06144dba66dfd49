"""Decide from what the ranks write down whether a run hangs, and ask for stacks."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# SIGUSR1 is left to the programs under test.
STACKS_SIGNAL = signal.SIGUSR2
# Many ranks on few cores import, collect and report slowly: no sign of a hang.
START_SECONDS = 120.0
STACKS_SECONDS = 5.0
TEST_PHASES = ("setup", "call", "teardown")


@dataclass(frozen=True)
class State:
    """Where one rank is; see `support.rank`."""

    rank: int
    pid: int
    test: str
    phase: str
    since: float
    limit: float | None = None
    failed_at: float | None = None
    """When it failed the test that it is in."""
    status: int | None = None
    """What pytest ended with, once it has."""


@dataclass(frozen=True)
class Limits:
    """When patience ends."""

    test_seconds: float
    """For one test, unless it carries `@pytest.mark.limit(seconds)`."""
    grace_seconds: float
    """For a test after another rank has failed it, or has left altogether."""
    total_seconds: float


def read_states(folder: Path, ranks: int) -> dict[int, State]:
    """States of the ranks that have written one."""
    states = {}
    for rank in range(ranks):
        with contextlib.suppress(FileNotFoundError):
            fields = json.loads((folder / f"rank-{rank}.json").read_text())
            states[rank] = State(**fields)
    return states


def complaint(
    states: dict[int, State], ranks: int, limits: Limits, began: float, now: float
) -> str | None:
    """Why the run must be given up, or None."""
    if now - began > limits.total_seconds:
        return f"the run takes longer than {limits.total_seconds:g} s"
    silent = sorted(set(range(ranks)) - set(states))
    if silent and now - began > START_SECONDS:
        return f"ranks {silent} have not started within {START_SECONDS:g} s"
    complaints = (
        _overdue(state, limits, now) or _left_alone(state, states, limits, now)
        for state in states.values()
    )
    return next(filter(None, complaints), None)


def _overdue(state: State, limits: Limits, now: float) -> str | None:
    limit = max(limits.test_seconds, state.limit or 0)
    if now - state.since <= limit:
        return None
    taken = f"{now - state.since:.1f} s (limit {limit:g} s)"
    return f"rank {state.rank} is in {state.test} ({state.phase}) for {taken}"


def _left_alone(
    state: State, states: dict[int, State], limits: Limits, now: float
) -> str | None:
    """A rank may wait for ever for one that failed or left: do not wait as long."""
    if state.phase not in TEST_PHASES:
        return None
    for other in states.values():
        gone_at = _gone_at(other, state.test)
        if other is state or gone_at is None:
            continue
        if now - gone_at > limits.grace_seconds:
            how = "left" if other.status is not None else "failed it"
            return f"rank {other.rank} {how}: rank {state.rank} still in {state.test}"
    return None


def _gone_at(other: State, test: str) -> float | None:
    if other.status is not None:
        return other.since
    return other.failed_at if other.test == test else None


def ask_for_stacks(
    states: Iterable[State], folder: Path, patience: float = 5.0
) -> None:
    """Make every living rank write its stacks, and wait until they are complete."""
    asked = []
    for state in states:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, STACKS_SIGNAL)
            asked.append(folder / f"rank-{state.rank}.stacks")
    deadline = time.monotonic() + STACKS_SECONDS
    before: list[int] = []
    while time.monotonic() < deadline:
        sizes = [file.stat().st_size for file in asked]
        if all(sizes) and sizes == before:
            return
        before = sizes
        time.sleep(0.2)
