"""Which libraries are loaded, read from the kernel's list."""

import sys
from pathlib import Path

import pytest
from mpi4py import MPI

from acidmpi.mpi import loaded as module
from acidmpi.mpi.loaded import loaded, mpi_library_file, mpiexec_beside, ucx_cuda_module

MAPS = """\
7f00-7f01 r-xp 00000000 08:01 11 /opt/mpi/lib/libmpi.so.40.30.1
7f01-7f02 r--p 00001000 08:01 11 /opt/mpi/lib/libmpi.so.40.30.1
7f02-7f03 r-xp 00000000 08:01 12 /opt/mpi/lib/libmpi_cxx.so.40
7f03-7f04 rw-p 00000000 00:00 0 [heap]
7f04-7f05 r--p 00000000 08:01 13 /home/a user/libmpi.txt
7f05-7f06 rw-p 00000000 00:00 0
"""

assert MPI.Is_initialized()


def test_names_are_matched_once_each(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text(MAPS)
    names = [path.name for path in loaded("libmpi", maps)]
    assert names == ["libmpi.so.40.30.1", "libmpi_cxx.so.40"]


def test_a_system_without_the_list_has_nothing_loaded(tmp_path):
    assert loaded("libmpi", tmp_path / "none") == []


@pytest.mark.skipif(sys.platform != "linux", reason="the list is Linux's")
def test_the_library_and_its_launcher_are_found():
    library, launcher = mpi_library_file(), mpiexec_beside()
    assert library is not None
    assert library.name.startswith("libmpi")
    assert launcher is not None
    assert launcher.name == "mpiexec"


def test_the_cuda_transports_are_those_beside_the_ucx_that_is_loaded(
    tmp_path, monkeypatch
):
    libraries = [tmp_path / "lib/libuct.so.0"]
    monkeypatch.setattr(module, "loaded", lambda beginning: libraries)
    assert ucx_cuda_module() is None
    found = tmp_path / "lib/ucx/libuct_cuda.so.0"
    found.parent.mkdir(parents=True)
    found.touch()
    assert ucx_cuda_module() == found
    libraries.clear()
    assert ucx_cuda_module() is None
    assert Path(found).exists()
