"""What can be chosen for the benchmarks that need a GPU; read without starting MPI."""

from dataclasses import dataclass
from typing import Annotated, Literal

from acidmpi.config.options import above, at_least, check_fields
from acidmpi.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuKernelsOptions:
    """Every kernel of a GPU beside a plain copy in its memory, the cache being cold."""

    sizes: str = "11000000,110000000,1000000000"
    """Numbers in a vector, float32; several with commas between them."""

    rounds: Annotated[int, at_least(1)] = 9
    """How often each kernel is timed."""

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.lengths

    @property
    def lengths(self) -> tuple[int, ...]:
        """The sizes as numbers."""
        words = self.sizes.replace("_", "").split(",")
        if not all(word.strip().isdecimal() and int(word) for word in words):
            raise ConfigError(
                "--sizes must be whole numbers from 1 on with commas between them, "
                f"got {self.sizes!r}"
            )
        return tuple(int(word) for word in words)


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuExchangeOptions:
    """An exchange of a vector in a GPU's memory, beside bare messages and copies.

    Through the host, and from device memory where MPI can do that.
    """

    size: Annotated[int, at_least(1)] = 25_600_000
    """Numbers in the vector, float32; by default about ResNet-50's."""

    transport: Literal["auto", "device", "staged"] = "auto"
    """Whether MPI is given device memory; `auto` finds out."""

    chunk_bytes: Annotated[int, at_least(64)] = 8 << 20
    """Size of the pieces."""

    rounds: Annotated[int, at_least(1)] = 15
    """How often each way is timed; they take turns."""

    deadline_seconds: Annotated[float, above(0)] = 60.0
    """How long a wait for the other rank may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuStepOptions:
    """A training step on a GPU with the communication loop beside one without.

    Also the time that `step()` takes on the host, and the memory that is added.
    """

    depth: Literal["18", "50"] = "50"
    """Which residual network."""

    batch_size: Annotated[int, at_least(1)] = 128
    """Images of a rank in a step."""

    image_size: Annotated[int, at_least(16)] = 224
    """Height and width of an image, in pixels."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """In which the network computes, by torch's autocast; parameters are float32."""

    transport: Literal["auto", "device", "staged"] = "auto"
    """How parameters travel."""

    steps: Annotated[int, at_least(1)] = 30
    """Steps that are timed together."""

    warmup: Annotated[int, at_least(0)] = 10
    """Steps before each turn that are not timed."""

    rounds: Annotated[int, at_least(1)] = 5
    """Turns of either way."""

    deadline_seconds: Annotated[float, above(0)] = 120.0
    """How long a wait for other ranks may take."""

    def __post_init__(self) -> None:
        check_fields(self)
