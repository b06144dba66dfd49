"""The options of each benchmark: read without MPI and without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from acidmpi.config.options import above, at_least, check_fields

RESNET18 = 11_200_000
"""About the parameters of ResNet-18."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelsOptions:
    """Every kernel beside a plain copy, and fused steps beside torch's."""

    size: Annotated[int, at_least(1)] = RESNET18
    """Numbers in a vector."""

    rounds: Annotated[int, at_least(1)] = 15
    """How often each kernel is timed."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExchangeOptions:
    """One complete exchange, beside the same in one piece and beside bare messages."""

    size: Annotated[int, at_least(1)] = RESNET18
    """Numbers in the vector."""

    dtype: Literal["float32", "float64", "float16"] = "float32"
    """Type of the numbers."""

    method: Literal["a2cid2", "async"] = "a2cid2"
    """With the companion vector of a2cid2, or without."""

    chunk_bytes: Annotated[int | None, at_least(64)] = None
    """Size of the chunks; by default the worker's own."""

    message_bytes: Annotated[int | None, at_least(1)] = None
    """Longest message of a chunk; by default the worker's own rule."""

    rounds: Annotated[int, at_least(1)] = 15
    """How often each way is timed; they take turns."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for the other rank may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairingOptions:
    """Exchanges a second when one is always due, and what it costs to find a peer.

    Two ranks also run a loop that never has to find one.
    """

    size: Annotated[int, at_least(1)] = 1000
    """Numbers in the vector, float32."""

    topology: str = "ring"
    """Who may exchange with whom, as in `acidmpi.train`."""

    method: Literal["a2cid2", "async"] = "a2cid2"
    """With the companion vector of a2cid2, or without."""

    pairing: Literal["handshake", "fifo"] = "handshake"
    """How peers find each other."""

    seconds: Annotated[float, above(0)] = 5.0
    """How long to count, in all rounds together."""

    rounds: Annotated[int, at_least(1)] = 5
    """Parts of that time; the rival of two ranks takes its turn after each."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """Source of chance."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsensusOptions:
    """How fast ranks come to agree by pure averaging, and how well the mean is kept.

    Beside the decay of the distance stands that of ideal exchanges at the same rate.
    """

    topology: str = "ring"
    """Who may exchange with whom, as in `acidmpi.train`."""

    method: Literal["a2cid2", "async", "both"] = "both"
    """With the accelerating momentum, without, or one after the other."""

    comm_rate: Annotated[float, above(0)] = 1.0
    """Exchanges that a rank takes part in per unit of time, on average."""

    unit_seconds: Annotated[float, above(0)] = 0.05
    """The unit of time. Where ranks share cores it must be long enough for the asked
    rate to be kept."""

    units: Annotated[float, above(0)] = 100.0
    """Units of time after which a run ends."""

    since: Annotated[float, at_least(0)] = 20.0
    """Units of time that the fit leaves out at the beginning."""

    seeds: Annotated[int, at_least(1)] = 3
    """Runs of each method."""

    size: Annotated[int, at_least(1)] = 1000
    """Numbers in the vector."""

    dtype: Literal["float32", "float64"] = "float32"
    """Type of the numbers while the decay is measured; the mean is watched in both."""

    exchanges: Annotated[int, at_least(0)] = 10_000
    """Exchanges, of all ranks together, after which the mean is looked at; 0: it is
    not."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOptions:
    """`Worker.step()` beside torch's own, on one thread, zeroing included."""

    depth: Literal["18", "34", "50"] = "18"
    """Which residual network's parameters."""

    rounds: Annotated[int, at_least(1)] = 15
    """How often each step is timed; they take turns."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdleOptions:
    """What a communication loop costs while there is nothing to do."""

    size: Annotated[int, at_least(1)] = 1000
    """Numbers in the vector, float32."""

    topology: str = "ring"
    """Who may exchange with whom, as in `acidmpi.train`."""

    seconds: Annotated[float, above(0)] = 10.0
    """How long to watch."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class IterationOptions:
    """One training iteration of a model with each way to average its gradients.

    Beside it stand the same model without communication and torch's DistributedDataParallel
    over gloo, in the same run.
    """

    model: str = "resnet18"
    """resnet18, 34, 50, 101, 152, bert-tiny, bert-base, bert-large, or a classifier of
    torchvision."""

    method: str = "several"
    """ssgd, powersgd, acpsgd, topk, sign or another compressor's name; none: without
    communication; ddp, ddp-powersgd: torch's own; several: those of --methods."""

    methods: str = "ssgd,powersgd,acpsgd"
    """Such names, with commas between them; they take turns."""

    rivals: bool = True
    """Add no communication and ddp, and ddp-powersgd where a low-rank method is
    asked for."""

    batch_size: Annotated[int, at_least(1)] = 32
    """Images or sentences of a rank in an iteration."""

    image_size: Annotated[int, at_least(16)] = 224
    """Height and width of an image, in pixels."""

    sentence_length: Annotated[int, at_least(2)] = 64
    """Words of a sentence, padding included."""

    matrix_rank: Annotated[int, at_least(1)] = 4
    """Width of the factors of powersgd, acpsgd and ddp-powersgd."""

    start_step: Annotated[int, at_least(0)] = 3
    """Step from which these three compress; ddp-powersgd never does before its third."""

    density: Annotated[float, above(0)] = 0.01
    """Share of elements that topk, randomk and randomblock send."""

    bits: Annotated[int, at_least(1)] = 8
    """Of a number that qsgd sends."""

    bucket_bytes: Annotated[int, at_least(0)] = 25 << 20
    """Size of messages before compression; 0: one for each parameter."""

    warmup: Annotated[int, at_least(0)] = 10
    """Iterations before each turn that are not timed."""

    iterations: Annotated[int, at_least(1)] = 10
    """Iterations that are timed together; an even number, for acpsgd has steps of two
    kinds."""

    repeats: Annotated[int, at_least(1)] = 5
    """How often, in each turn."""

    rounds: Annotated[int, at_least(1)] = 1
    """Turns of each method."""

    deadline_seconds: Annotated[float, above(0)] = 300.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointOptions:
    """What one checkpoint a minute costs the compute loop, and how fast it is written.

    The speed is compared with plain writes to the same disk.
    """

    size: Annotated[int, at_least(1)] = 100_000_000
    """Number of float32 parameters; x, x̃ and a momentum of as many are written."""

    seconds: Annotated[float, above(0)] = 20.0
    """Length of a stretch with a checkpoint, which must fit in, and of one without."""

    rounds: Annotated[int, at_least(1)] = 5
    """Pairs of such stretches."""

    step_seconds: Annotated[float, above(0)] = 0.1
    """Computation of each step, beside the update of all parameters."""

    folder: Path = Path()
    """Where to write; its disk is what is measured. Emptied of it at the end."""

    deadline_seconds: Annotated[float, above(0)] = 300.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultToleranceOptions:
    """What --fault-tolerant costs a training run in which nobody dies.

    The same run without it takes turns with it; needs mpiexec --with-ft ulfm.
    """

    task: Literal["digits", "quadratic"] = "digits"
    """What is trained."""

    model: Literal["mlp", "cnn"] | None = None
    """Which model of digits; by default mlp, with 9,000 parameters."""

    batch_size: Annotated[int | None, at_least(1)] = None
    """Images in a gradient; by default the task's."""

    gradients: Annotated[int, at_least(1)] = 150
    """Of a rank in each turn, on average."""

    rounds: Annotated[int, at_least(1)] = 25
    """Turns of each, short and many, for other work comes and goes; one is not counted."""

    topology: str = "ring"
    """Who may exchange with whom, as in `acidmpi.train`."""

    comm_rate: Annotated[float, above(0)] = 1.0
    """Exchanges that a rank takes part in per gradient, on average."""

    seed: Annotated[int, at_least(0, below=2**32)] = 0
    """Source of chance."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)
