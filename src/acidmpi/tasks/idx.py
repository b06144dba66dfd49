"""Files in the IDX format of MNIST, plain or compressed.

A file begins with four bytes: two zeros, the type of an element (8: unsigned byte) and the
number of dimensions; then each dimension as a big-endian 32-bit number; then the elements.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import DataError

UNSIGNED_BYTE = 8
LARGEST_HEADER_BYTES = 4 + 4 * 255

Bytes = NDArray[np.uint8]


def read_idx(path: Path, dimensions: int, cure: str) -> Bytes:
    """The array of unsigned bytes in `path`.

    Args:
        path: a plain file is mapped into memory; one that ends in `.gz` is unpacked.
        dimensions: how many the array must have.
        cure: what to do when the file is not right, for the error.

    Raises:
        DataError: the file cannot be read, is not such a file, or ends too early or late.
    """
    data = _content(path, cure)
    shape = _shape(data[:LARGEST_HEADER_BYTES].tobytes(), path, dimensions, cure)
    start = 4 + 4 * dimensions
    expected = start + math.prod(shape)
    if len(data) != expected:
        raise DataError(
            f"{path} must have {expected} bytes for {_words(shape)} elements, found "
            f"{len(data)}; {cure}"
        )
    return data[start:].reshape(shape)


def _content(path: Path, cure: str) -> Bytes:
    try:
        if path.suffix == ".gz":
            return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
        if path.stat().st_size == 0:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; {cure}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; {cure}") from error


def _shape(header: bytes, path: Path, dimensions: int, cure: str) -> tuple[int, ...]:
    wanted = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if header[:4] != wanted:
        raise DataError(
            f"{path} must begin with {wanted.hex(' ')} (unsigned bytes in {dimensions} "
            f"dimensions), found {header[:4].hex(' ') or 'nothing'}; {cure}"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(
            f"{path} must tell {dimensions} dimensions, but ends after {len(header)} "
            f"bytes; {cure}"
        )
    sizes = np.frombuffer(header, ">u4", dimensions, 4)
    return tuple(int(size) for size in sizes)


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
