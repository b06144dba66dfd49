"""Run every benchmark of the asynchronous trainer and write one page of their outputs.

    source jobs/local/common.sh; acidmpi_use .venv        # the switches that MPI needs
    python jobs/local/record_benchmarks.py docs/benchmarks/DATE-PLACE.md [--only TEXT]

Use a machine that does nothing else; it takes about ten minutes on two cores. Add what the
figures mean by hand: the page begins with a table of what was asked.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

BENCH = ["python", "-m", "acidmpi.bench"]
TCP = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,tcp"}
TCP_MPICH = {
    "MPIR_CVAR_NOLOCAL": "1",
    "MPIR_CVAR_CH4_NETMOD": "ofi",
    "FI_PROVIDER": "tcp",
}
LIMIT_SECONDS = 600

RUNS = [
    (1, "kernels", {}),
    (1, "step", {}),
    (1, "idle", {}),
    (64, "idle", {}),
    (16, "pairing", {}),
    (64, "pairing", {}),
    (16, "consensus", {}),
    *[(2, name, {}) for name in ("exchange", "pairing") for _ in range(3)],
    *[(2, "exchange", "tcp")] * 3,
]
"""Ranks, benchmark, settings; what depends on the moment is run three times."""


def main(words: list[str] | None = None) -> int:
    """Run them all: 1 where one of them failed, 2 for a mistake."""
    arguments = parsed(words)
    runs = [run for run in RUNS if arguments.only in run[1]]
    if mistake := found_wrong(arguments, runs):
        print(f"record_benchmarks: error: {mistake}", file=sys.stderr)
        return 2
    outputs = [output for run in runs if (output := run_one(*run)) is not None]
    if outputs:
        arguments.page.write_text(page(outputs))
    print(f"{len(outputs)} of {len(runs)} outputs are in {arguments.page}")
    return 0 if len(outputs) == len(runs) else 1


def found_wrong(arguments, runs):
    """What is to be told before ten minutes of benchmarks, or None."""
    page, names = arguments.page, sorted({name for _, name, _ in RUNS})
    if not runs:
        return f"--only must be part of one of {', '.join(names)}, got {arguments.only}"
    if page.is_dir() or not os.access(page.resolve().parent, os.W_OK | os.X_OK):
        return f"PAGE must be a file in a folder that can be written, got {page}"
    if any(ranks > 1 for ranks, *_ in runs) and shutil.which("mpiexec") is None:
        return "there is no mpiexec; source jobs/local/common.sh; acidmpi_use .venv"
    return None


def parsed(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--only", default="", help="benchmarks whose name has this")
    return parser.parse_args(words)


def run_one(ranks, name, settings):
    """Title, text and result of one benchmark, or None where it failed."""
    launch = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
    if settings == "tcp":
        settings = TCP_MPICH if is_mpich() else TCP
    title = " ".join(
        [*(f"{k}={v}" for k, v in settings.items()), *launch, *BENCH, name]
    )
    print(title, flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*launch, *BENCH, name],
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"  ended after {LIMIT_SECONDS} s", file=sys.stderr)
        return None
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    lines = done.stdout.rstrip().splitlines()
    print(f"  {time.monotonic() - began:.0f} s")
    return title, "\n".join(lines[:-1]).rstrip(), json.loads(lines[-1])


def is_mpich():
    told = subprocess.run(
        ["mpiexec", "--version"], capture_output=True, text=True, check=False
    )
    return "Open MPI" not in told.stdout and "prte" not in told.stdout.lower()


def page(outputs):
    """All outputs as Markdown."""
    last = outputs[-1][2]
    told = last["hardware"]
    memory = f"{told['memory_bytes'] / 2**30:.0f} GiB"
    hardware = f"{told['cpu']}, {told['cores']} cores, {memory}, {told['system']}"
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    parts = [
        f"# Outputs of {date.today():%d %B %Y}",
        f"Hardware: {hardware}.",
        f"Versions: {versions}. `OMP_NUM_THREADS=1`.",
        *(section(*output) for output in outputs),
    ]
    return "\n\n".join(parts) + "\n"


def section(title, text, result):
    load = result["hardware"].get("load", "unknown")
    return (
        f"## {title}\n\nCommit {result['commit']}, load {load} at its end.\n\n"
        f"```text\n{text}\n```"
    )


if __name__ == "__main__":
    sys.exit(main())
