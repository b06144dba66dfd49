"""Machine code on disk, shared by the processes of a node and kept between runs.

Guarantees:
- a name carries the processor, the compiler's version and the sources, so what is found
  was made from this code for this machine;
- a file appears complete or not at all, and a damaged one is as good as absent, so any
  number of processes may read and write at once;
- no folder is needed: without one, each process compiles for itself and says so once.
"""

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite  # type: ignore[import-untyped,unused-ignore]
from llvmlite import binding as llvm

_PRIVATE = f"acidmpi-{os.getuid()}"

logger = logging.getLogger(__name__)


def fetch(name: str, make: Callable[[], bytes]) -> bytes:
    """The code called `name`: from the first folder that has it, else from `make`."""
    file = f"{name}-{_environment()}.kernel"
    for folder in folders():
        code = _read(folder / file)
        if code is not None:
            return code
    code = make()
    _keep(file, code)
    return code


def folders() -> Iterator[Path]:
    """Where code is looked for and, in the first that can be written, kept."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / "acidmpi"
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # there may be no home
        user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        yield user / "acidmpi"
    with suppress(OSError):
        yield _private_folder()


@cache
def _private_folder() -> Path:
    path = Path(tempfile.gettempdir()) / _PRIVATE
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # Code from here is run: no folder that somebody else made or may write.
    if (status.st_uid, stat.S_IFMT(status.st_mode)) != (os.getuid(), stat.S_IFDIR):
        raise PermissionError(f"{path} belongs to somebody else")
    path.chmod(0o700)
    return path


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(file: str, code: bytes) -> None:
    for folder in folders():
        with suppress(OSError):
            _write(folder / file, code)
            if folder.name == _PRIVATE:
                _warn(f"in {folder}, which may be emptied")
            return
    _warn("nowhere, so that every process compiles again")


def _write(path: Path, code: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


@cache
def _environment() -> str:
    digest = hashlib.sha256(llvmlite.__version__.encode())
    digest.update(llvm.get_host_cpu_name().encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _warn(where: str) -> None:
    logger.warning(
        "compiled kernels are kept %s: neither the package's folder nor the user's "
        "cache can be written; set NUMBA_CACHE_DIR to a folder that can",
        where,
    )
