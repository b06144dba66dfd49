"""What ends with the `with` block that it was made for."""

from types import TracebackType
from typing import Self


class Closing:
    """A context manager that is closed with the error of its block, if there is one."""

    def close(self, error: BaseException | None = None) -> None:
        """End it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(error)
