"""Host memory over MPI keeps the transport contract with every rank, itself included."""

import pytest

from acidmpi.testing.test_transports import (
    duplicate,
    test_host_transport_keeps_the_contract,
)

__all__ = ["duplicate", "test_host_transport_keeps_the_contract"]

pytestmark = pytest.mark.mpi
