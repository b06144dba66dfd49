"""NVRTC through its own binding: CUDA sources become PTX on a machine without a GPU."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path


class CompileError(Exception):
    """NVRTC refused a source; its log is the text."""


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("nvidia.cu13")
    if spec is None:
        raise FileNotFoundError("no nvidia-cuda-nvrtc here; install acidmpi[test]")
    (folder,) = spec.submodule_search_locations
    # NVRTC opens this one by its bare name.
    (builtins,) = Path(folder, "lib").glob("libnvrtc-builtins.so.*")
    ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    (path,) = Path(folder, "lib").glob("libnvrtc.so.*")
    return ctypes.CDLL(str(path))


def ptx(source: str, options: tuple[str, ...], architecture: str) -> str:
    """Compile to PTX.

    Args:
        source: CUDA C++.
        options: of the compiler.
        architecture: such as `sm_90`.

    Raises:
        CompileError: it is not accepted, or not without a warning.
    """
    library, program = _library(), ctypes.c_void_p()
    library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
    )
    words = [*options, f"-arch=compute_{architecture.removeprefix('sm_')}"]
    array = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    try:
        status = library.nvrtcCompileProgram(program, len(words), array)
        log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
        if status or log.strip():
            raise CompileError(f"status {status}: {log}")
        return _text(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(size_of, copy, program) -> str:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    copy(program, buffer)
    return buffer.value.decode()
