"""Names of Horovod's that are there to say what to use instead."""

from typing import Any, NoReturn

from acidmpi.compat.unsupported import UnsupportedError

TIMELINE_CURE = "read DistributedOptimizer's statistics(), or use torch.profiler"


class Missing:
    """A module or class of Horovod's; whatever is done with it raises.

    Args:
        what: its name.
        cure: what to do instead.
    """

    def __init__(self, what: str, cure: str) -> None:
        self._what = what
        self._cure = cure

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `UnsupportedError`."""
        raise UnsupportedError(self._what, self._cure)

    def __getattr__(self, name: str) -> NoReturn:
        """Raise `UnsupportedError`, except for what Python itself looks for."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedError(f"{self._what}.{name}", self._cure)


SyncBatchNorm = Missing(
    "SyncBatchNorm",
    "use torch.nn.GroupNorm, or torch.nn.BatchNorm1d to 3d on each rank",
)

elastic = Missing(
    "elastic", "write checkpoints and start the job again with the ranks that are left"
)


def start_timeline(file_path: str, mark_cycles: bool = False) -> NoReturn:
    """Raise: there is no timeline here.

    Raises:
        UnsupportedError: always.
    """
    del file_path, mark_cycles
    raise UnsupportedError("start_timeline()", TIMELINE_CURE)


def stop_timeline() -> NoReturn:
    """Raise: there is no timeline here.

    Raises:
        UnsupportedError: always.
    """
    raise UnsupportedError("stop_timeline()", TIMELINE_CURE)
