"""Files that are whole or not there, and whose damage is seen.

A file is written under another name beside its place, brought to the disk (`fsync`) and
renamed: a process that dies, or a full disk, leaves the old file or none. What was
written is known by its checksum: SHA-256 for the small JSON files, inside them; CRC-32
of each block for arrays, in the JSON file that goes with them. A CRC is five times as
fast as SHA-256 is on a usual core; random damage of a block escapes it once in 4·10⁹
times.

Arrays stand in the safetensors format. It is read by the `safetensors` package, but
written here: the package copies every array into an object of bytes first, and holds
Python's lock meanwhile, so that the training loop would stand still.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from acidmpi.checkpoint.tree import Array
from acidmpi.errors import DataError

BLOCK_BYTES = 1 << 22
ALIGNMENT_BYTES = 8

CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Types of NumPy and their names in the format."""


class Damaged(DataError):
    """A file of a checkpoint is missing, torn or changed."""


class Checks(NamedTuple):
    """What a file of arrays must look like."""

    length: int
    """Bytes."""

    crcs: list[int]
    """CRC-32 of each block of `BLOCK_BYTES`."""


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> Checks:
    """Write contiguous arrays, of little-endian types, into one safetensors file.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    with _replacing(path) as file:
        sink = _Sink(file)
        sink.write(_header(arrays))
        for array in _in_order(arrays):
            sink.write(array.reshape(-1).view(np.uint8).data if array.size else b"")
        return sink.checks()


def read_arrays(path: Path, checks: Checks) -> dict[str, Array]:
    """The arrays of a file that is as it was written.

    Raises:
        Damaged: it is not.
    """
    from safetensors.numpy import load_file

    _verify(path, checks)
    try:
        return load_file(path)
    except Exception as error:  # the package has errors of its own for each mistake
        raise Damaged(f"{path} is not a safetensors file: {error}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` with its checksum.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    text = _canonical(content)
    whole = {**content, "sha256": hashlib.sha256(text).hexdigest()}
    with _replacing(path) as file:
        file.write(json.dumps(whole, indent=1, allow_nan=False).encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` was given.

    Raises:
        Damaged: the file is missing or not as it was written.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is torn or changed: {error}") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path} is torn or changed: it holds no object")
    told = found.pop("sha256", None)
    if not _fits(found, told):
        raise Damaged(f"{path} is torn or changed: its checksum does not fit")
    return found


class _Sink:
    """Writes bytes and keeps the checksum of each block."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._crcs: list[int] = []
        self._crc = self._filled = self._length = 0

    def write(self, data: "bytes | memoryview") -> None:
        view = memoryview(data)
        while len(view):
            piece = view[: BLOCK_BYTES - self._filled]
            view = view[len(piece) :]
            self._crc = zlib.crc32(piece, self._crc)
            self._count(len(piece))
            while len(piece):  # a disk that is nearly full takes a part only
                piece = piece[self._file.write(piece) :]

    def checks(self) -> Checks:
        last = [self._crc] if self._filled else []
        return Checks(self._length, self._crcs + last)

    def _count(self, length: int) -> None:
        self._filled += length
        self._length += length
        if self._filled == BLOCK_BYTES:
            self._crcs.append(self._crc)
            self._crc = self._filled = 0


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is complete and on the disk."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _in_order(arrays: Mapping[str, Array]) -> list[Array]:
    """Large items first, as the format wants it, so that all of them are aligned."""
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    return [np.ascontiguousarray(arrays[name]) for name in names]


def _header(arrays: Mapping[str, Array]) -> bytes:
    entries: dict[str, Any] = {}
    end = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        array = arrays[name]
        begin, end = end, end + array.nbytes
        entries[name] = {
            "dtype": CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def _verify(path: Path, checks: Checks) -> None:
    try:
        with path.open("rb") as file:
            length, crcs = _checksums(file)
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    if length != checks.length:
        raise Damaged(f"{path} must have {checks.length} bytes, found {length}")
    if crcs != list(checks.crcs):
        pairs = zip(crcs, checks.crcs, strict=True)
        block = next(k for k, (found, told) in enumerate(pairs) if found != told)
        raise Damaged(f"{path} has changed: the checksum of block {block} does not fit")


def _checksums(file: BinaryIO) -> tuple[int, list[int]]:
    crcs, length = [], 0
    while block := file.read(BLOCK_BYTES):
        crcs.append(zlib.crc32(block))
        length += len(block)
    return length, crcs


def _fits(content: Mapping[str, Any], told: Any) -> bool:
    try:
        return bool(told == hashlib.sha256(_canonical(content)).hexdigest())
    except ValueError:  # it holds an infinity or a NaN, which are never written
        return False


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()
