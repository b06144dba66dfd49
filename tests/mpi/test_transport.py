"""Host memory over MPI keeps the transport contract with every rank, itself included."""

import pytest

from acidmpi.testing.test_transports import (
    duplicate,
    host_transport,
    test_host_transport_keeps_the_contract,
    test_host_transport_takes_back_what_one_side_has_begun,
)

__all__ = [
    "duplicate",
    "host_transport",
    "test_host_transport_keeps_the_contract",
    "test_host_transport_takes_back_what_one_side_has_begun",
]

pytestmark = pytest.mark.mpi
