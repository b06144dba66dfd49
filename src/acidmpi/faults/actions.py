"""What a fault does to the process that it happens to."""

import errno
import os
import signal
import subprocess
import sys
import time


class PlannedFault(RuntimeError):
    """An error to order; no `AcidError`, because faults of programs are none either."""


def announce(rank: int, where: str, what: str) -> None:
    """Say on standard error that a fault happens, so that no drill goes unnoticed."""
    sys.stderr.write(f"acidmpi: fault to order: rank {rank} at {where}: {what}\n")
    sys.stderr.flush()


def kill() -> None:
    """End this process at once, as `kill -9` does: nothing is said or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop(seconds: float) -> None:
    """Stop all threads of this process; a helper process does it and continues it.

    Both by the helper, because on a busy machine it could come before this process stops
    itself, which then nobody would continue. It holds none of this process's files, so
    that a launcher which waits for them is not held up by it.
    """
    me = os.getpid()
    with subprocess.Popen(
        ["/bin/sh", "-c", f"kill -STOP {me}; sleep {seconds:.3f}; kill -CONT {me}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        pass  # waits for it: the thread that comes to the fault goes no further


def pause(seconds: float) -> None:
    """Let the calling thread sleep; other threads of the process go on."""
    time.sleep(seconds)


def full_disk() -> None:
    """Fail as a write to a full disk does.

    Raises:
        OSError: always, with the system's number for it.
    """
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
