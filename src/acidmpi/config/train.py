"""The options of `python -m acidmpi.train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from acidmpi.config.options import (
    Alone,
    Bound,
    above,
    at_least,
    between,
    check_fields,
    options_of,
)
from acidmpi.errors import ConfigError

OWN_FOLDER = "own"
"""Where `--resume` looks when nothing follows it."""

DEADLINE_SECONDS = 300.0
"""How long any wait for other ranks may take unless the options say otherwise."""

CLOCKED = ("a2cid2", "async")
"""Methods in which every rank starts exchanges, by a clock of the rate asked for."""

ASYNCHRONOUS = (*CLOCKED, "adpsgd")
"""Methods in which peers average in pairs; in the others all ranks step together."""

TOPOLOGIES = {
    "a2cid2": "ring",
    "async": "ring",
    "adpsgd": "ring",
    "gossip": "one-peer-exponential",
}
"""The graphs that methods use unless the options say otherwise; others have none."""

USED_BY = {
    "topology": tuple(TOPOLOGIES),
    "comm_rate": CLOCKED,
    "max_lag": ASYNCHRONOUS,
    "pairing": CLOCKED,
    "safety": ("a2cid2",),
    "chunk_bytes": ASYNCHRONOUS,
    "message_bytes": ASYNCHRONOUS,
    "fault_tolerant": ("a2cid2", "async"),
    "compression": ("allreduce",),
    "matrix_rank": ("allreduce",),
    "density": ("allreduce",),
    "bits": ("allreduce",),
    "start_step": ("allreduce",),
    "bucket_bytes": ("allreduce",),
    "local_steps": ("localsgd",),
}
"""Options that only some methods use; with others they must be left at their defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run.

    Where `None` stands for the task's own value, `config.toml` in the run's folder has
    the value that was used.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds, or the method does
            not use an option that has been set.
    """

    task: Literal["digits", "mnist", "cifar10", "imagenet", "quadratic"] = "digits"
    """What is learned: handwritten digits (shipped with the package), MNIST or
    Fashion-MNIST, CIFAR-10, ImageNet (these need --data-dir, the last torchvision too),
    or a noisy quadratic function (NumPy only, starts fast)."""

    model: str | None = None
    """The network, such as mlp, cnn or resnet18; by default the task's own."""

    method: Literal["a2cid2", "async", "adpsgd", "gossip", "allreduce", "localsgd"] = (
        "a2cid2"
    )
    """How ranks work together: peers average in pairs, a2cid2 with the accelerating
    momentum, async without, adpsgd with ranks that ask and ranks that answer; with gossip
    all ranks average with neighbours in each step; allreduce averages the gradients of
    all ranks in each step, localsgd their parameters now and then."""

    compression: str = "none"
    """How gradients are compressed before they are averaged: none, fp16, bf16, topk,
    randomk, randomblock, signnorm, signvote, efsign, qsgd, terngrad, onebit, powersgd,
    acpsgd, or what an installed package adds; for allreduce."""

    matrix_rank: Annotated[int | None, at_least(1)] = None
    """Width of the factors of powersgd and acpsgd; by default the compression's own."""

    density: Annotated[
        float | None, Bound(0, low_included=False, high=1, high_included=True)
    ] = None
    """Share of the elements that topk, randomk and randomblock send; by default the
    compression's own."""

    bits: Annotated[int | None, at_least(1)] = None
    """Bits of an element with qsgd; by default the compression's own."""

    start_step: Annotated[int | None, at_least(0)] = None
    """Steps before powersgd and acpsgd begin to compress; by default the compression's
    own."""

    bucket_bytes: Annotated[int, at_least(0)] = 25 << 20
    """How many bytes of gradients allreduce sends at a time; 0 sends each parameter's by
    themselves."""

    local_steps: Annotated[int, at_least(1)] = 8
    """Steps of each rank between two averages of localsgd."""

    topology: str | None = None
    """Who may exchange with whom: ring, path, star, complete, exponential, grid, torus,
    hypercube, random-regular:DEGREE, the path of an edge-list file, or, for gossip only,
    one-peer-exponential; by default that for gossip, and a ring otherwise."""

    comm_rate: Annotated[float, at_least(0)] = 1.0
    """Exchanges that a rank takes part in during one mean gradient, on average."""

    max_lag: Annotated[int | None, at_least(0)] = 16
    """How many exchanges communication may fall behind before the computation waits;
    with none it never waits."""

    pairing: Literal["handshake", "schedule", "fifo"] = "handshake"
    """How peers find each other: by asking (goes on without a neighbour that does not
    answer), by a schedule drawn from the shared seed, or first come, first served."""

    progress: Literal["thread", "inline"] = "thread"
    """Who drives communication: a thread, or the training loop itself; together with
    --pairing schedule, inline makes a run repeatable bit for bit."""

    transport: Literal["auto", "host", "device", "staged"] = "auto"
    """How parameters travel: from host memory (host); from a GPU's, which MPI itself
    reads and writes (device), or by way of host memory (staged); auto takes the best way
    there is."""

    chunk_bytes: Annotated[int, at_least(1)] = 768 << 10
    """Size of the chunks in which parameters in host memory are mixed and sent, the same
    on all ranks."""

    message_bytes: Annotated[int | None, at_least(1)] = None
    """Longest message of a chunk, from host memory; by default whole chunks, but 60 KiB to
    other machines where Open MPI has nothing but TCP."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where gradients are computed; auto takes a GPU where there is one that this run
    can use."""

    batch_size: Annotated[int | None, at_least(1)] = None
    """Samples of one gradient on one rank; by default the task's own."""

    lr: Annotated[float | None, above(0)] = None
    """Learning rate of one rank alone, raised linearly with the number of ranks and the
    batch size during the warm-up; by default the task's own."""

    momentum: Annotated[float | None, at_least(0, below=1)] = None
    """Momentum of SGD; by default the task's own."""

    weight_decay: Annotated[float | None, at_least(0)] = None
    """Weight decay, not applied to biases and normalisation; by default the task's
    own."""

    epochs: Annotated[float | None, above(0)] = None
    """Passes over the training set, counted over all ranks together; by default the
    task's own."""

    evaluate_every: Annotated[float | None, above(0)] = None
    """Epochs between evaluations of the ranks' average on the test set; with none only
    the final model is evaluated."""

    nonfinite: Literal["raise", "skip"] = "raise"
    """What a NaN or an infinity in a gradient does: ends the run, or is left out."""

    clip: Annotated[float | None, above(0)] = None
    """Largest norm of a gradient; longer ones are scaled down. By default none is."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """Determines initial parameters, data order, augmentation and pairing."""

    data_dir: Path | None = None
    """Folder of the data set's files, for tasks that do not ship their own."""

    dirichlet: Annotated[float | None, above(0)] = None
    """Gives each rank its own mix of classes, drawn from a Dirichlet distribution of
    this concentration (0.3 is uneven, 100 nearly even); by default all ranks share the
    whole set."""

    heterogeneity: Annotated[float | None, at_least(0)] = None
    """How far apart the minima of the ranks' own functions lie (--task quadratic), as a
    standard deviation of their elements: 0 for one common function; by default 1."""

    subset: Annotated[int | None, at_least(1)] = None
    """Use only so many training samples; by default all of them."""

    safety: Annotated[float, between(0, 1)] = 0.8
    """How much of the acceleration of a2cid2 is used: 1 is the paper, 0 none. Delays and
    noise cost least at 0.8 (docs/results.md)."""

    deadline_seconds: Annotated[float, above(0)] = DEADLINE_SECONDS
    """How long a wait for other ranks may take before the run ends with an error; when
    silent neighbours are set aside and stalls are shown follows from it."""

    fault: str | None = None
    """What is to go wrong, for drills, such as 'rank=2 at=exchange:50 do=kill'; several
    with semicolons, or a TOML file."""

    checkpoint_every: Annotated[float | None, above(0)] = None
    """Epochs between checkpoints, counted like --epochs over all ranks; by default one
    is written only when a signal asks for it."""

    resume: Annotated[str | None, Alone(OWN_FOLDER)] = None
    """Go on from the newest complete checkpoint: of the run's own folder (--output), or
    of the run whose folder follows."""

    fault_tolerant: bool = False
    """Let the others finish when ranks die, even rank 0; needs Open MPI 5 started by
    `mpiexec --with-ft ulfm`, and --pairing handshake."""

    output: Path | None = None
    """The run's folder; by default runs/TASK-METHOD-TIME."""

    overwrite: bool = False
    """Use the run's folder even when it holds an earlier run."""

    log_seconds: Annotated[float, above(0)] = 5.0
    """Seconds between two lines of progress."""

    def __post_init__(self) -> None:
        check_fields(self)
        _check_used(self)
        _check_tolerant(self)


def _check_used(config: TrainConfig) -> None:
    """Raise where an option has been set that the method would ignore."""
    for option in options_of(TrainConfig):
        methods = USED_BY.get(option.name, (config.method,))
        value = getattr(config, option.name)
        if config.method not in methods and value != option.default:
            raise ConfigError(
                f"{option.flag} is for --method {' or '.join(methods)}, got {value!r} "
                f"with --method {config.method}; leave it out or choose another method"
            )


def _check_tolerant(config: TrainConfig) -> None:
    """Raise where a death cannot be survived, though that is asked for."""
    if config.fault_tolerant and config.pairing != "handshake":
        raise ConfigError(
            "--fault-tolerant is for --pairing handshake, got "
            f"{config.pairing!r}; choose handshake, or leave out --fault-tolerant and "
            "keep checkpoints to start again from"
        )
