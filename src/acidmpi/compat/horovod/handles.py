"""Handles of collective operations, and meeting points.

Progress is made whenever a function of this package is called, not in the background.
"""

import warnings
from typing import Any

from acidmpi.compat.horovod import works
from acidmpi.compat.horovod.basics import Adasum, Average, ReduceOp, Sum, session
from acidmpi.compat.horovod.process_sets import (
    ProcessSet,
    check_global,
    global_process_set,
)
from acidmpi.compat.operations import Operation, Work, joined
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import ConfigError


def poll(handle: Operation) -> bool:
    """Whether `synchronize(handle)` would return at once; never waits.

    Raises:
        ConfigError: it is no handle.
    """
    return session().operations.poll(_checked(handle))


def synchronize(handle: Operation) -> Any:
    """Wait for an operation and return its result.

    Raises:
        ConfigError: it is no handle.
        DisagreementError: another rank called something else at this point.
        DeadlineExceeded: another rank did not call it in time.
    """
    return session().operations.wait(_checked(handle))


def barrier(process_set: ProcessSet = global_process_set) -> None:
    """Return when all ranks have called it."""
    check_global(process_set)
    synchronize(start("barrier", works.met(session())))


def join(device: int = -1) -> int:
    """Wait for ranks that have more batches, contributing nothing to their steps.

    A rank that has joined takes part in `step()` of the others' optimizers, with zeros
    for gradients; the mean is still over all ranks, and its own parameters stay as they
    are, so broadcast them afterwards from the rank returned. The others may call nothing
    else before they join.

    Args:
        device: ignored.

    Returns:
        The highest of the ranks that joined last.

    Raises:
        DisagreementError: a rank called something else than `step()`.
    """
    del device
    here = session()
    work = joined(here.operations.comm, here.empty_steps, here.seconds)
    last: int = here.operations.run("join", work)
    return last


def start(what: str, work: Work) -> Operation:
    """Queue an operation of the present session."""
    return session().operations.start(what, work)


def begin_group(function: str, name: str | None, count: int) -> None:
    """Compare with the other ranks how many tensors a group has; collective.

    Raises:
        DisagreementError: another rank has another number, or called something else.
    """
    what = label(function, name)
    synchronize(start(what, works.counted(session(), what, count)))


def _checked(handle: Any) -> Operation:
    if not isinstance(handle, Operation):
        raise ConfigError(
            "a handle must be what a function whose name ends in _async returned, got "
            f"{handle!r}; keep that and pass it"
        )
    return handle


def label(function: str, name: str | None) -> str:
    """How errors call an operation."""
    return function if name is None else f"{function}({name!r})"


def chosen_operator(op: ReduceOp | None, average: bool | None) -> ReduceOp:
    """The operator that `op` and the deprecated `average` stand for.

    Raises:
        ConfigError: both are given, or there is no such operator.
        UnsupportedError: it is Adasum.
    """
    if op is not None and average is not None:
        raise ConfigError(
            f"op replaces average, got both: op={op!r} and average={average!r}; leave "
            "average out"
        )
    if average is not None:
        warnings.warn(
            "average= is deprecated in favour of op=; pass op=Average or op=Sum",
            DeprecationWarning,
            stacklevel=3,
        )
        return Average if average else Sum
    return checked_operator(Average if op is None else op)


def checked_operator(op: ReduceOp) -> ReduceOp:
    """`op`, if it is one that is offered.

    Raises:
        ConfigError: there is no such operator.
        UnsupportedError: it is Adasum.
    """
    try:
        found = ReduceOp(op)
    except ValueError as error:
        raise ConfigError(
            f"op must be Average, Sum, Min, Max or Product, got {op!r}; choose one"
        ) from error
    if found is Adasum:
        raise UnsupportedError(
            "op=Adasum", "use op=Average, with the learning rate it needs"
        )
    return found
