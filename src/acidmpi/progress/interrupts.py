"""Ctrl-C at a moment when it would tear what cannot be taken up again."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C that comes inside take effect behind the block; a second one at once.

    Only the main thread hears of it. What the caller does about signals stays as it is.
    """
    handler = signal.getsignal(signal.SIGINT)
    if (
        not callable(handler)
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    came: list[FrameType | None] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if came:
            handler(number, frame)
        came.append(frame)

    signal.signal(signal.SIGINT, keep)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(signal.SIGINT, came[0])
