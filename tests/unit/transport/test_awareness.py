"""What libraries say of themselves, and libraries that say it in other ways."""

import ctypes
from types import SimpleNamespace

import pytest
from mpi4py import MPI

from acidmpi.mpi.loaded import mpi_functions
from acidmpi.transport import awareness
from acidmpi.transport.awareness import claims, memory_kinds, own_query


class Kinds:
    """A communicator whose memory kinds are given."""

    def __init__(self, kinds):
        self._kinds = kinds

    def Get_info(self):
        return SimpleNamespace(Get={awareness.KINDS_KEY: self._kinds}.get, Free=print)


@pytest.mark.parametrize(
    ("kinds", "yes"),
    [
        (None, None),
        ("mpi,system", None),
        ("mpi, system, cuda:device", True),
        ("cuda", True),
        ("rocm:device", None),
    ],
)
def test_memory_kinds_of_the_standard(kinds, yes):
    assert memory_kinds(Kinds(kinds)).yes is yes


class Mpich:
    """`MPIX_GPU_query_support`, and a second function that must not be asked."""

    def __init__(self, status, answer):
        self._told = status, answer

    def MPIX_GPU_query_support(self, kind, place):
        status, answer = self._told
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = answer
        return status

    def MPIX_Query_cuda_support(self):
        return 0


@pytest.mark.parametrize(
    ("library", "yes"),
    [
        (Mpich(0, 1), True),
        (Mpich(0, 0), False),
        (Mpich(5, 1), False),  # refuses to answer: the other one says no
        (SimpleNamespace(MPIX_Query_cuda_support=lambda: 1), True),
        (SimpleNamespace(MPIX_Query_cuda_support=lambda: 0), False),
        (SimpleNamespace(), None),
    ],
)
def test_the_librarys_own_functions(library, yes):
    assert own_query(library).yes is yes


def test_the_library_of_this_process_is_found_and_asked():
    assert hasattr(mpi_functions(), "MPI_Init")
    said = claims(MPI.COMM_SELF)
    assert [claim.source for claim in said][1].startswith("MPIX_")
    assert said[1].yes is False  # those of PyPI are built without CUDA


def test_ucx_is_believed_only_with_its_cuda_transports(monkeypatch):
    monkeypatch.setattr(awareness, "ucx_cuda_module", lambda: None)
    assert awareness.ucx().yes is None
    monkeypatch.setattr(awareness, "ucx_cuda_module", lambda: "/opt/libuct_cuda.so.0")
    assert awareness.ucx().yes
