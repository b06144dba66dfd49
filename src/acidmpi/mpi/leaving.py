"""How a rank leaves when MPI cannot be started, and sees to it that the job ends."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

from acidmpi.config.launched import speaks

NOT_STARTED_STATUS = 76
"""The command's exit status when MPI did not start: to start the ranks again may help."""

LAUNCHER = "prterun"
"""The process that Open MPI's `mpiexec` becomes; it belongs to this job alone."""

DAEMON = "prted"
"""The same on other nodes."""

LAUNCHER_SECONDS = 10.0
"""How long it may take to end: after some such deaths it waits for ever for a lock of its
own (Open MPI 5.0.11)."""


def leave_now(text: str) -> None:
    """Tell why, once on each node, and end this process, even from inside of MPI."""
    try:
        if _is_first_to_tell():
            cure = f"start the ranks again (exit status {NOT_STARTED_STATUS})"
            os.write(2, f"acidmpi: error: {text}: {cure}\n".encode())
            end_launcher(os.getppid(), LAUNCHER_SECONDS)
    finally:  # whatever came between: others wait for this rank to end
        os._exit(NOT_STARTED_STATUS)


def somebody_has_told() -> bool:
    """Whether another rank of this job on this node is leaving or has left so."""
    mark = _mark()
    return mark is not None and mark.exists()


def _is_first_to_tell() -> bool:
    """Whether nobody of this job on this node has told yet.

    Any rank may be dead, and who lives is not known: the first one tells.
    """
    mark = _mark()
    if mark is None:
        return speaks()
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _mark() -> Path | None:
    """A file in the launcher's folder on this node, which is removed with the job."""
    folder = Path(os.environ.get("PMIX_SERVER_TMPDIR", ""))
    return folder / "acidmpi-told" if folder.is_absolute() and folder.is_dir() else None


def somebody_is_gone() -> bool:
    """Whether Open MPI's launcher has fewer processes on this node than it has started."""
    pid = os.getppid()
    started = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", 0))
    return _name(pid) in (LAUNCHER, DAEMON) and len(_children(pid)) < started


def end_launcher(pid: int, seconds: float) -> None:
    """Leave a process behind that ends the launcher if it does not end by itself.

    It waits until no rank is left; if some go on, because they were ready before the
    death, that is for ever.

    Args:
        pid: this process's parent; nothing is done if that is another program.
        seconds: how long the launcher may take to end by itself.
    """
    if _name(pid) != LAUNCHER:
        return
    launcher = os.pidfd_open(pid)
    if os.fork() == 0:
        try:
            _let_go_of_all_but(launcher)
            while not select.select([launcher], [], [], seconds)[0]:
                if not _children(pid):
                    signal.pidfd_send_signal(launcher, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(launcher)


def _let_go_of_all_but(descriptor: int) -> None:
    """Files, the terminal: whoever waits for them to be closed waits for no one else."""
    os.setsid()
    os.closerange(0, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))


def _name(pid: int) -> str:
    """Of the program; empty where the system does not say."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _children(pid: int) -> list[str]:
    """Processes that it has started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # The name, in parentheses, may itself hold spaces and parentheses.
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found.append(path.parent.name)
    return found
