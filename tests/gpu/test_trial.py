"""Trials of messages from a GPU's memory, and the choice that follows from them."""

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.transport.choice import choose
from acidmpi.transport.trial.child import SIZES, values
from acidmpi.transport.trial.memory import CudaMemory
from acidmpi.transport.trial.parent import trial

COMM = MPI.COMM_WORLD


def test_what_is_put_into_device_memory_can_be_read_again():
    memory = CudaMemory(0)
    for number, size in enumerate(SIZES):
        place = memory.allocate(size)
        memory.put(place, values(0, number, size))
        assert np.array_equal(memory.get(place, size), values(0, number, size))


@pytest.mark.parametrize("alone", [True, False])
def test_a_trial_gives_a_verdict_whatever_this_mpi_does(alone):
    verdict = trial("cuda", 0, 60.0, alone=alone)
    print(f"\n{MPI.Get_library_version()[:40]!r}: {verdict.moved}, {verdict.text}")
    assert "could not try it" not in verdict.text


@pytest.mark.mpi
@pytest.mark.limit(120)
def test_all_ranks_make_the_same_choice_and_survive_it():
    choice = choose("auto", COMM)
    names = COMM.allgather(choice.name)
    assert set(names) == {choice.name}
    if COMM.rank == 0:
        print(f"\n{choice}")
