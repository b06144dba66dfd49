"""What makes a virtual environment see the packages of the Python that runs this.

    python jobs/gpu/beside.py >ENVIRONMENT/lib/pythonX.Y/site-packages/beside.pth

The folders come behind the environment's own. cuda-pathfinder, by which CuPy finds NVRTC
and cuBLAS among packages from PyPI, asks `site` for folders and not `sys.path`.
"""

import sys

FOLDERS = [path for path in sys.path if "-packages" in path]

print(*FOLDERS, sep="\n")
print(
    "import site; site.getsitepackages = "
    f"lambda *given, own=site.getsitepackages: own(*given) + {FOLDERS}"
)
