"""Which device a rank of a training run computes on."""

from acidmpi.arrays.cuda.choice import choose_device
from acidmpi.config.train import ASYNCHRONOUS, TrainConfig
from acidmpi.errors import ConfigError


def choose(config: TrainConfig, local_rank: int, *, has_model: bool) -> int | None:
    """The index of this rank's GPU; None is the CPU.

    Args:
        config: the options.
        local_rank: number of this rank among those of its machine.
        has_model: whether the task has a torch model.

    Raises:
        ConfigError: a GPU was asked for and cannot be used.
    """
    if config.device == "cuda" and not has_model:
        raise ConfigError(
            "--device cuda is for tasks with a model, got --task "
            f"{config.task}, which works with NumPy; leave it out"
        )
    index = choose_device(config.device, local_rank) if has_model else None
    if index is not None and not _torch_has_cuda():
        if config.device == "cuda":
            raise ConfigError(
                "--device cuda needs a torch that is built with CUDA and sees the GPU, "
                "got one that does not; install torch from its CUDA index, or take "
                "--device cpu"
            )
        index = None
    _check_transport(config, index)
    return index


def _check_transport(config: TrainConfig, index: int | None) -> None:
    if index is None and config.transport in ("device", "staged"):
        raise ConfigError(
            f"--transport {config.transport} is for parameters in the memory of a GPU, "
            "got a run on the CPU; take --transport auto, or --device cuda"
        )
    if index is not None and config.transport == "host":
        raise ConfigError(
            "--transport host is for parameters in host memory, got a run on a GPU; take "
            "--transport auto or staged, or --device cpu"
        )
    if config.transport == "device" and config.method not in ASYNCHRONOUS:
        raise ConfigError(
            f"--transport device is for --method {', '.join(ASYNCHRONOUS)}, got "
            f"{config.method}, whose messages go by way of host memory; take --transport "
            "auto or staged"
        )


def _torch_has_cuda() -> bool:
    from acidmpi.arrays.torch.devices import has_cuda

    return has_cuda()
