"""Tests that need a GPU: jobs/gpu/check.sh runs them, nothing else does.

They do not skip themselves: a machine without a GPU ends the run with status 3.
"""

import pytest

from acidmpi.transport.trial.driver import Driver, NoDevice

NO_GPU = 3


def pytest_configure():
    """Leave at once where there is no GPU."""
    try:
        found = Driver().devices()
    except NoDevice as error:
        pytest.exit(f"these tests need a GPU: {error}", NO_GPU)
    if not found:
        pytest.exit("these tests need a GPU: the CUDA driver sees none", NO_GPU)
