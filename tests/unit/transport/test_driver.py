"""The CUDA driver's calls, against a driver made of host memory."""

import os
import subprocess
import sys

import pytest
from support import fake_cuda
from support.host_device import COMPILER

from acidmpi.transport.trial.parent import trial

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")

LOOK = """
import numpy as np
from acidmpi.transport.trial.driver import Driver, NoDevice
from acidmpi.transport.trial.memory import CudaMemory
driver = Driver()
print(driver.version, *driver.devices())
try:
    memory = CudaMemory(5)
    place = memory.allocate(1000)
    memory.put(place, np.arange(1000).astype(np.uint8))
    print((memory.get(place, 1000) == np.arange(1000).astype(np.uint8)).all())
    driver.call("cuDeviceGet", np.ctypeslib.ctypes.byref(np.ctypeslib.ctypes.c_int()), 7)
except NoDevice as error:
    print(error)
"""


def look(variables):
    environment = os.environ | variables
    command = [sys.executable, "-c", LOOK]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_device_is_described_and_its_memory_reached(tmp_path):
    described, right, refused = look(fake_cuda.build(tmp_path))
    for word in ("13.2", fake_cuda.NAME, fake_cuda.UUID, f"{6 << 30}", "(9, 0)"):
        assert word in described
    assert right == "True"
    assert refused == "cuDeviceGet: error 101 (invalid device ordinal)"


def test_a_driver_without_devices_says_so(tmp_path):
    assert look(fake_cuda.build(tmp_path, devices=0))[1] == "CUDA sees no device"


def test_a_trial_moves_what_the_driver_allocates(tmp_path):
    variables = fake_cuda.build(tmp_path)
    verdict = trial("cuda", 1, 50.0, alone=True, variables=variables)
    assert verdict.moved, verdict
