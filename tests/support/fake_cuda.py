"""A CUDA driver made of host memory: `libcuda.so.1` with the calls that a trial makes.

It shows that names, arguments and their sizes are right, and what is done with errors; it
has one device, whose memory is the host's.
"""

import subprocess
from pathlib import Path

from support.host_device import COMPILER

NAME, UUID = "Imitation 9000", "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"

_SOURCE = """
#include <stdlib.h>
#include <string.h>
static int alive, current;
#define NEED(condition, status) do { if (!(condition)) return status; } while (0)
extern "C" {
int cuInit(unsigned flags) { alive = 1; return flags ? 1 : 0; }
int cuDriverGetVersion(int* version) { *version = 13020; return 0; }
int cuDeviceGetCount(int* count) { NEED(alive, 3); *count = DEVICES; return 0; }
int cuDeviceGet(int* device, int number)
{ NEED(number >= 0 && number < DEVICES, 101); *device = 40 + number; return 0; }
int cuDeviceGetName(char* name, int length, int device)
{ NEED(device == 40, 101); strncpy(name, "Imitation 9000", length); return 0; }
int cuDeviceGetUuid_v2(unsigned char* uuid, int device)
{ NEED(device == 40, 101); for (int k = 0; k < 16; ++k) uuid[k] = k; return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device)
{ NEED(device == 40, 101); *bytes = 6ull << 30; return 0; }
int cuDeviceGetAttribute(int* value, int number, int device)
{ NEED(device == 40, 101); *value = number == 75 ? 9 : 0; return 0; }
int cuDevicePrimaryCtxRetain(void** context, int device)
{ NEED(device == 40, 101); *context = (void*) 0x7f00000001; return 0; }
int cuCtxSetCurrent(void* context)
{ NEED(context == (void*) 0x7f00000001, 201); current = 1; return 0; }
int cuCtxSynchronize(void) { NEED(current, 201); return 0; }
int cuMemAlloc_v2(unsigned long long* place, size_t bytes)
{ NEED(current, 201); *place = (unsigned long long) malloc(bytes); return 0; }
int cuMemcpyHtoD_v2(unsigned long long to, const void* origin, size_t bytes)
{ NEED(current, 201); memcpy((void*) to, origin, bytes); return 0; }
int cuMemcpyDtoH_v2(void* to, unsigned long long origin, size_t bytes)
{ NEED(current, 201); memcpy(to, (void*) origin, bytes); return 0; }
int cuGetErrorString(int status, const char** text)
{ *text = status == 101 ? "invalid device ordinal" : "some error"; return 0; }
}
"""


def build(folder: Path, devices: int = 1) -> dict[str, str]:
    """Compile it; the variable with which a new process takes it for the driver."""
    options = ["-O1", "-shared", "-fPIC", f"-DDEVICES={devices}", "-x", "c++"]
    command = [COMPILER, *options, "-", "-o", folder / "libcuda.so.1"]
    subprocess.run([*map(str, command)], input=_SOURCE, text=True, check=True)
    return {"LD_LIBRARY_PATH": str(folder)}
