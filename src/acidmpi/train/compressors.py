"""The compressor that a run asks for, by its name and the options that go with it."""

from typing import Any

from acidmpi.compression.protocol import Compressor
from acidmpi.compression.registry import make
from acidmpi.config.train import TrainConfig

OPTIONS = ("matrix_rank", "density", "bits", "start_step")


def check_compression(config: TrainConfig) -> None:
    """Raise where a run could not be compressed as asked, before anything is made of it.

    Raises:
        ConfigError: as `make_compressor`.
    """
    if config.method == "allreduce":
        make_compressor(config)


def make_compressor(config: TrainConfig) -> Compressor:
    """The compressor with the options that are given; the others are its own.

    Raises:
        ConfigError: there is no such compressor, or it has no such option.
    """
    given = {name: getattr(config, name) for name in OPTIONS}
    chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return make(config.compression, **chosen)
