"""Deaths of ranks that the launcher tells of while MPI is still starting.

`MPI_Init` waits for all ranks, and for ever when one of them has died; errors of MPI are
not there yet. But it has connected to the launcher by PMIx, and PMIx's events tell who has
ended. Here they are heard (PMIx Standard 4 and 5, chapter on events; the structures are
those of its C header). It needs a launcher that lets the others go on, as Open MPI's does
with `--with-ft ulfm`.
"""

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from acidmpi.mpi.loaded import loaded

ENDINGS = {
    -200: "PMIX_ERR_PROC_TERM_WO_SYNC",
    -400: "PMIX_ERR_PROC_KILLED_BY_CMD",
    -401: "PMIX_ERR_PROC_FAILED_TO_START",
    -402: "PMIX_ERR_PROC_ABORTED_BY_SIG",
    -404: "PMIX_ERR_EXIT_NONZERO_TERM",
}
"""Events that say that a rank is no more, by their codes."""

ACTION_COMPLETE = -334
"""What a handler answers that keeps the event from others: while MPI starts, its own first
handler would abort the job."""

TRUE = 1
"""The type of a truth value."""

NAME_BYTES, KEY_BYTES = 256, 512

EXIT_STATUS = b"pmix.exit.code"
"""What of a death is told besides: 128 and the signal's number where one killed it."""


class Death(NamedTuple):
    """A rank that has ended, by its number among all, and with which status."""

    rank: int
    status: int | None
    """None where the launcher does not say."""


class _Process(ctypes.Structure):
    _fields_ = (("job", ctypes.c_char * NAME_BYTES), ("rank", ctypes.c_uint32))


class _Union(ctypes.Union):
    _fields_ = (
        ("flag", ctypes.c_bool),
        ("number", ctypes.c_int),
        ("rest", ctypes.c_uint64 * 3),
    )


class _Value(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint16), ("data", _Union))


class _Info(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_char * KEY_BYTES),
        ("flags", ctypes.c_uint32),
        ("value", _Value),
    )


_Answer = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_Handler = ctypes.CFUNCTYPE(
    None,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.POINTER(_Process),
    ctypes.POINTER(_Info),
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    _Answer,
    ctypes.c_void_p,
)


class DeathNotices:
    """Hears of ranks that have ended, from `begin` to `end`; MPI does not hear of these.

    PMIx calls from a thread of its own, which needs Python's lock: whoever waits inside
    MPI in that time must have let go of it, as calls through `ctypes` do.

    Args:
        job: PMIx's name of the job (`PMIX_NAMESPACE`); other jobs' processes are not told.
        tell: called with each death, from PMIx's thread.
    """

    def __init__(self, job: str, tell: Callable[[Death], None]) -> None:
        self._job = job.encode()
        self._tell = tell
        self._library = pmix_library()
        self._handler = _Handler(self._heard)
        self._number = -1

    def begin(self) -> bool:
        """Listen, as soon as PMIx runs; true once it does, or if it never can."""
        if self._library is None:
            return True
        if not self._library.PMIx_Initialized():
            return False
        codes = (ctypes.c_int * len(ENDINGS))(*ENDINGS)
        # MPI's own handler may come first otherwise, and tells nobody else.
        first = _Info(b"pmix.evfirst", 0, _Value(TRUE, _Union(flag=True)))
        self._number = self._library.PMIx_Register_event_handler(
            codes,
            ctypes.c_size_t(len(codes)),
            ctypes.byref(first),
            ctypes.c_size_t(1),
            self._handler,
            None,
            None,
        )
        return self._number >= 0

    def end(self) -> None:
        """Listen no longer."""
        if self._library is not None and self._number >= 0:
            number = ctypes.c_size_t(self._number)
            self._library.PMIx_Deregister_event_handler(number, None, None)

    def _heard(
        self,
        _handler: int,
        _code: int,
        source: Any,
        more: Any,
        count: int,
        _results: Any,
        _result_count: int,
        answer: Any,
        data: Any,
    ) -> None:
        if source and source.contents.job == self._job:
            told = {more[i].key: more[i].value for i in range(count)}
            status = told[EXIT_STATUS].data.number if EXIT_STATUS in told else None
            self._tell(Death(source.contents.rank, status))
        if answer:
            answer(ACTION_COMPLETE, None, 0, None, None, data)


def pmix_library() -> ctypes.CDLL | None:
    """The PMIx that this process has loaded with MPI, if it is one that is known here."""
    libraries = [ctypes.CDLL(str(path)) for path in loaded("libpmix")]
    return next((library for library in libraries if _is_known(library)), None)


def _is_known(library: ctypes.CDLL) -> bool:
    """Whether it names its events as the standard does: an older one has other numbers."""
    name_of = library.PMIx_Error_string
    name_of.restype = ctypes.c_char_p
    return all(name_of(code) == name.encode() for code, name in ENDINGS.items())
