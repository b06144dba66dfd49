"""Layers, fences, light imports, a frozen command line, short modules."""

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
LINT = "import sys; from importlinter.cli import lint_imports as f; sys.exit(f({}))"
HEAVY = (
    "cupy",
    "matplotlib",
    "mpi4py",
    "networkx",
    "numba",
    "numpy",
    "rich",
    "scipy",
    "torch",
)
LONGEST_MODULE_LINES = 400


def python(*arguments: str, cwd: Path = ROOT, source: Path = SOURCE):
    """Run Python on a copy of the package, which need not be the installed one."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


def lint(cwd: Path, source: Path) -> tuple[int, str]:
    """Check the contract of `cwd`'s setup.cfg."""
    code = LINT.format("no_cache=True, no_logo=True")
    result = python("-c", code, cwd=cwd, source=source)
    return result.returncode, result.stdout + result.stderr


def test_layers_and_fences_hold():
    status, report = lint(ROOT, SOURCE)
    assert status == 0, report


@pytest.fixture
def copy(tmp_path):
    """A copy of the package and its contract, to be spoilt."""
    ignored = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(SOURCE / "acidmpi", tmp_path / "src/acidmpi", ignore=ignored)
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


PLANTED = {
    "upwards": (
        "dynamics/__init__.py",
        "import acidmpi.worker",
        "only from rows below",
    ),
    "siblings": (
        "telemetry/__init__.py",
        "import acidmpi.tasks",
        "only from rows below",
    ),
    "undeclared": ("stowaway.py", "", "acidmpi.stowaway"),
    "mpi4py": ("worker/planted.py", "from mpi4py import MPI", "mpi4py only"),
    "torch": ("telemetry/planted.py", "import torch.nn", "torch only"),
    "cupy": ("kernels/planted.py", "import cupy", "cupy only"),
    "networkx": ("worker/planted.py", "import networkx", "inside topology only"),
    "numba": ("dynamics/planted.py", "from numba import njit", "in kernels only"),
    "matplotlib": ("worker/planted.py", "import matplotlib", "in figures only"),
    "rich": ("worker/planted.py", "import rich.progress", "only commands draw"),
    "bare": ("train/planted.py", "from acidmpi import Worker", "the bare package"),
    "cycle": ("arrays/flat.py", "import acidmpi.arrays.torch", "no import cycles"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_contract_can_be_broken(copy, planted):
    path, line, rule = PLANTED[planted]
    with (copy / "src/acidmpi" / path).open("a") as file:
        file.write(f"\n{line}\n")
    status, report = lint(copy, copy / "src")
    assert status == 1, report
    broken = report.partition("Broken contracts")[2]
    assert rule in broken, report


def loaded_by(module: str) -> set[str]:
    """Heavy libraries that importing a module pulls in."""
    code = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_bare_import_is_quick():
    clock = "from time import perf_counter as now; t = now(); "
    seconds = [
        float(python("-c", clock + "import acidmpi; print(now() - t)").stdout)
        for _ in range(5)
    ]
    assert statistics.median(seconds) < 0.3


def test_bare_import_loads_no_library():
    assert loaded_by("acidmpi") == set()


@pytest.mark.parametrize(
    "module",
    [
        "acidmpi.arrays.flat",
        "acidmpi.clocks",
        "acidmpi.config",
        "acidmpi.dynamics",
        "acidmpi.kernels",
        "acidmpi.pairing.fifo",
        "acidmpi.pairing.handshake",
        "acidmpi.pairing.schedule",
        "acidmpi.progress",
        "acidmpi.simulate.cli",
        "acidmpi.simulate.compare",
        "acidmpi.simulate.plan_check",
        "acidmpi.simulate.race",
        "acidmpi.topology",
    ],
)
def test_pure_halves_load_neither_mpi_nor_torch(module):
    assert loaded_by(module).isdisjoint({"mpi4py", "torch", "cupy"})


@pytest.mark.parametrize("module", ["acidmpi.worker.gossip", "acidmpi.tasks"])
def test_arrays_need_no_torch(module):
    assert "torch" not in loaded_by(module)


def test_charts_load_matplotlib_only_to_draw():
    assert "matplotlib" not in loaded_by("acidmpi.figures.charts")


def test_help_of_train_starts_nothing_and_offers_what_was_promised():
    code = (
        "import sys, runpy; sys.argv = ['train', '--help']\n"
        "try: runpy.run_module('acidmpi.train', run_name='__main__')\n"
        "except SystemExit as leaving: status = leaving.code\n"
        "print('loaded:', *({'mpi4py.MPI', 'torch'} & set(sys.modules)))\n"
        "sys.exit(status)"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded:"
    assert options_of(result.stdout) == promised_options()


def promised_options() -> set[str]:
    """The checked-in list, with what argparse adds to it."""
    lines = (ROOT / "tests/data/train_options.txt").read_text().splitlines()
    switches = {line.split()[0] for line in lines if line.endswith("true or false")}
    return (
        {line.split()[0] for line in lines}
        | {switch.replace("--", "--no-", 1) for switch in switches}
        | {"--config", "--help", "--version"}
    )


def options_of(text: str) -> set[str]:
    """Long options in the left column of argparse's help."""
    words = [
        word.strip(",")
        for line in text.splitlines()
        if line.lstrip().startswith("-")
        for word in line.split()[:4]
    ]
    return {word for word in words if word.startswith("--")}


def test_modules_are_short():
    lengths = {
        path.relative_to(SOURCE): len(path.read_text().splitlines())
        for path in SOURCE.rglob("*.py")
    }
    long = {path: n for path, n in lengths.items() if n > LONGEST_MODULE_LINES}
    assert not long
