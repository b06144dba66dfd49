"""The scripts for machines with a GPU, as far as they go without one."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from ctypes.util import find_library
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[3] / "jobs/gpu"

without_gpu = pytest.mark.skipif(
    find_library("cuda") is not None, reason="this machine may have a GPU"
)


def bash(*words, **variables):
    environment = os.environ | {"PYTHON": sys.executable} | variables
    command = ["bash", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", ["check.sh", "ucx.sh", "wheels.sh"])
def test_scripts_can_be_read(name):
    assert bash("-n", JOBS / name).returncode == 0


@without_gpu
def test_a_machine_without_a_gpu_is_told_so_in_one_line_with_a_status_of_its_own(
    tmp_path,
):
    result = bash(JOBS / "check.sh", "setup", REPORT=str(tmp_path / "report"))
    assert result.returncode == 3
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("acidmpi: error: this check needs a GPU: there is no CUDA")
    assert not (tmp_path / "report").exists()


def test_an_unknown_part_is_refused_before_anything_is_done():
    result = bash(JOBS / "check.sh", "kernles")
    assert result.returncode == 2
    assert "parts are setup kernels tests" in result.stderr


def test_every_part_that_is_offered_is_there_and_has_a_limit():
    text = (JOBS / "check.sh").read_text()
    (parts,) = [line for line in text.splitlines() if line.startswith("PARTS=")]
    for part in parts.removeprefix("PARTS=(").rstrip(")").split():
        assert f"part_{part}() {{" in text
        assert f"[{part}]=" in text
        assert f"#   {part} " in text


def test_a_part_leaves_two_files_and_no_more():
    """The report is what somebody carries away: no files of runs among it."""
    text = (JOBS / "check.sh").read_text()
    written = {word.rstrip('"') for word in re.findall(r'\$REPORT/([^\s"]+)', text)}
    assert written == {"$part.log", "$part.status", "report.md", "$1.log"}


def test_the_environment_for_ucx_puts_the_wheels_folder_first(tmp_path):
    folder = tmp_path / "libucx/lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "libucp.so.0").touch()
    result = bash(
        JOBS / "ucx.sh",
        "bash",
        "-c",
        "echo $LD_LIBRARY_PATH $OMPI_MCA_pml $MPIR_CVAR_NOLOCAL",
        PYTHONPATH=str(tmp_path),
        LD_LIBRARY_PATH="/opt/lib",
    )
    assert result.stdout.split() == [f"{folder}:/opt/lib", "ucx", "1"], result.stderr


def test_without_the_wheel_the_environment_says_what_to_install(tmp_path):
    folder = tmp_path / "libucx"  # a package of that name, without libraries
    folder.mkdir()
    (folder / "__init__.py").touch()  # comes before a wheel that is installed here
    result = bash(JOBS / "ucx.sh", "true", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert "acidmpi[ucx-cu13]" in result.stderr


def test_wheels_need_a_destination():
    result = bash(JOBS / "wheels.sh")
    assert result.returncode == 2
    assert "name a folder" in result.stderr


KEPT = (
    "lib/libucp.so.0",
    "lib/ucx/libuct_cuda.so.0",
    "bin/ucx_info",
    "lib/libalone.so",
    "__init__.py",
)
DROPPED = (
    "lib/libucp.so",
    "lib/libucp.so.0.0.0",
    "lib/libucp.a",
    "lib/ucx/libuct_cuda.so",
    "lib/ucx/libucx_perftest_cuda.so.0",
    "include/ucp/api/ucp.h",
    "bin/ucx_perftest",
)


def test_a_slim_wheel_keeps_what_programs_load_and_lists_it(tmp_path):
    wheel = tmp_path / "libucx_cu13-1-py3-none-any.whl"
    record = "libucx_cu13-1.dist-info/RECORD"
    names = [f"libucx/{name}" for name in (*KEPT, *DROPPED)]
    with zipfile.ZipFile(wheel, "w") as file:
        for name in names:
            file.writestr(name, "content" * 100)
        file.writestr(record, "".join(f"{n},sha256=x,700\n" for n in [*names, record]))
    command = [sys.executable, str(JOBS / "slim_wheel.py"), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(wheel) as file:
        assert set(file.namelist()) == {*(f"libucx/{n}" for n in KEPT), record}
        listed = [
            line.split(",")[0] for line in file.read(record).decode().splitlines()
        ]
        assert set(listed) == set(file.namelist())
        assert file.testzip() is None


def test_an_environment_finds_cuda_libraries_among_the_packages_beside_it(tmp_path):
    words = [sys.executable, JOBS / "beside.py"]
    beside = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    words = [sys.executable, "-m", "venv", "--without-pip", tmp_path]
    subprocess.run(words, check=True)
    (packages,) = tmp_path.glob("lib/python3*/site-packages")
    (packages / "beside.pth").write_text(beside)
    # As cuda-pathfinder looks for nvidia/cu13/lib.
    code = "import numpy, site; print(*site.getsitepackages(), sep='\\n')"
    words = [tmp_path / "bin/python", "-c", code]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert found.splitlines()[0] == str(packages)
    assert str(Path(pytest.__file__).parents[1]) in found.splitlines()


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A copy of the scripts with environments whose programs only say who they are."""
    shutil.copytree(JOBS.parent, tmp_path / "jobs")
    for name in ("openmpi", "mpich"):
        folder = tmp_path / f".venv-gpu-{name}/bin"
        for python in ("python", "python3"):
            program(folder / python, f"echo /libraries/of/{name}")
        program(folder / "mpiexec", 'echo "libraries: $LD_LIBRARY_PATH"')
    program(tmp_path / "base-python", "exit 0")
    return tmp_path


def test_the_ucx_of_the_environment_is_taken_whatever_python_is_named(machine):
    variables = {"PYTHON": str(machine / "base-python"), "LD_LIBRARY_PATH": ""}
    result = bash(machine / "jobs/gpu/check.sh", "exchange", **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("openmpi", "mpich"):
        assert f"libraries: /libraries/of/{name}" in result.stdout


def test_a_part_runs_from_whatever_folder_the_script_is_started_in(
    machine, monkeypatch
):
    monkeypatch.chdir(machine / "jobs/gpu")
    result = bash("check.sh", "exchange", PYTHON=str(machine / "base-python"))
    assert result.returncode == 0, result.stdout + result.stderr
