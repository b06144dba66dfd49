"""Run the tests that need ranks, at several sizes, and show every stack if one hangs.

    python tests/launcher.py [-n 1,2,3,4,7] [--limit-seconds 90] [pytest arguments…]

Rank 0's output is shown as it comes, another rank's only if that rank fails. When a
test takes longer than its limit on any rank, all ranks are asked for the stacks of all
their threads, everything is killed, the stacks are shown, and the status is 1.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support import mpirun
from support.watch import Limits, State, ask_for_stacks, complaint, read_states

TESTS = Path(__file__).parent
TAIL_LINES = 150


def main(arguments: list[str] | None = None) -> int:
    """Run one `mpiexec` after the other; stop at the first size that fails."""
    options, rest = parse(arguments)
    limits = Limits(
        options.limit_seconds,
        min(options.limit_seconds, options.grace_seconds),
        options.total_seconds,
    )
    return next((1 for n in options.sizes if not run(n, rest, limits)), 0)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Own options, and what is left for pytest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", dest="sizes", type=sizes, default=sizes("1,2,3,4,7"))
    parser.add_argument("--limit-seconds", type=float, default=90.0)
    parser.add_argument("--grace-seconds", type=float, default=20.0)
    parser.add_argument("--total-seconds", type=float, default=600.0)
    options, rest = parser.parse_known_args(arguments)
    if not any(Path(word.partition("::")[0]).exists() for word in rest):
        rest.append(str(TESTS / "mpi"))
    # Ranks write to a terminal of mpiexec's own making, whatever this one's is.
    colour = "--color=" + ("yes" if sys.stdout.isatty() else "no")
    return options, [colour, *([] if "-m" in rest else ["-m", "mpi"]), *rest]


def sizes(text: str) -> list[int]:
    """Numbers of ranks from a list with commas."""
    return [int(word) for word in text.split(",")]


def run(ranks: int, arguments: list[str], limits: Limits) -> bool:
    """Run pytest on so many ranks; tell whether all of them are content."""
    say(f"{ranks} rank{'s' if ranks > 1 else ''}: pytest {' '.join(arguments)}")
    folder = Path(tempfile.mkdtemp(prefix="acidmpi-tests-"))
    began = time.monotonic()
    try:
        process = mpirun.start(
            ranks,
            ["-P", TESTS / "support" / "rank.py", folder, *arguments],
            env=mpirun.environment() | {"PYTHONPATH": python_path()},
        )
        with mpirun.ended_at_exit(process):
            reason = watch(process, folder, ranks, limits, began)
            if reason:
                show_hang(reason, folder, ranks)
        good = not reason and judge(process.returncode, folder, ranks)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    say(f"{ranks} ranks: {'passed' if good else 'FAILED'} in {seconds:.1f} s")
    return good


def python_path() -> str:
    """Let ranks import `support`, whatever else they import."""
    inherited = mpirun.environment().get("PYTHONPATH")
    return f"{TESTS}:{inherited}" if inherited else str(TESTS)


def watch(
    process: subprocess.Popen[str],
    folder: Path,
    ranks: int,
    limits: Limits,
    began: float,
) -> str | None:
    """Wait for the end; return why it should not be waited for any longer."""
    while process.poll() is None:
        states = read_states(folder, ranks)
        reason = complaint(states, ranks, limits, began, time.monotonic())
        if reason:
            return reason
        time.sleep(0.1)
    return None


def show_hang(reason: str, folder: Path, ranks: int) -> None:
    """Show the failures so far and the stacks of all ranks."""
    states = read_states(folder, ranks)
    dead = {rank for rank, state in states.items() if died(state)}
    ask_for_stacks((s for s in states.values() if s.rank not in dead), folder)
    say(f"given up: {reason}")
    for rank in range(ranks):
        show_file(f"failure on rank {rank}", folder / f"rank-{rank}.failures")
    for rank in range(ranks):
        state = states.get(rank)
        if rank in dead:
            say_ended_early(rank, state)
        else:
            say(f"rank {rank} {describe(state)}; its stacks:")
            print(own_frames(read(folder / f"rank-{rank}.stacks")), flush=True)


def own_frames(stacks: str) -> str:
    """Stacks without the frames of pytest, which are the same on every rank."""
    foreign = ("/_pytest/", "/pluggy/")
    lines = [
        line
        for line in stacks.splitlines()
        if not any(folder in line for folder in foreign)
    ]
    return "\n".join(lines) or "(no answer)"


def describe(state: State | None) -> str:
    """Where a rank is, in words."""
    if state is None:
        return "has not started"
    seconds = time.monotonic() - state.since
    return f"(pid {state.pid}) is in {state.test} ({state.phase}) for {seconds:.1f} s"


def died(state: State) -> bool:
    """Whether a rank's process ended before its tests did."""
    return state.status is None and not mpirun.alive(state.pid)


def say_ended_early(rank: int, state: State | None) -> None:
    """Where a rank was whose process is there no more."""
    where = describe(state) if state is None else f"was in {state.test}"
    say(f"rank {rank} ended early: it {where}")


def judge(mpiexec_status: int, folder: Path, ranks: int) -> bool:
    """Look at what each rank ended with; show the output of those that failed."""
    states = read_states(folder, ranks)
    good = mpiexec_status == 0
    for rank in range(ranks):
        state = states.get(rank)
        if state is None or state.status is None:
            say_ended_early(rank, state)
            show_file(f"failure on rank {rank}", folder / f"rank-{rank}.failures")
        elif state.status:
            say(f"rank {rank} failed: pytest's status is {state.status}")
        else:
            continue
        good = False
        show_file(f"output of rank {rank}", folder / f"rank-{rank}.out")
    if not good:
        say(f"mpiexec ended with status {mpiexec_status}")
    return good


def show_file(title: str, path: Path) -> None:
    """Show the end of a file, if it has any content."""
    lines = read(path).splitlines()
    if lines:
        say(title)
        print("\n".join(lines[-TAIL_LINES:]), flush=True)


def read(path: Path) -> str:
    """The text of a file that may not be there."""
    return path.read_text(errors="replace") if path.exists() else ""


def say(text: str) -> None:
    """One line of the launcher's own, told apart from what the ranks print."""
    print(f"==== launcher: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
