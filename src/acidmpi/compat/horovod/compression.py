"""`Compression`: what Horovod offers, and every compressor of ours beside it.

Horovod's own are classes with `compress` and `decompress`, which `allreduce` calls;
`DistributedOptimizer` turns them into the compressor of ours that does the same, and takes
a compressor of ours as it is.
"""

from typing import Any

import torch
from torch import Tensor

from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.compression.protocol import Compressor as OwnCompressor
from acidmpi.compression.registry import make


class Compressor:
    """Compresses one tensor for `allreduce`."""

    @staticmethod
    def compress(tensor: Tensor) -> tuple[Tensor, Any]:
        """What travels, and what `decompress` needs."""
        return tensor, None

    @staticmethod
    def decompress(tensor: Tensor, ctx: Any) -> Tensor:
        """The reverse, after the reduction."""
        del ctx
        return tensor


class NoneCompressor(Compressor):
    """Tensors travel as they are."""


class FP16Compressor(Compressor):
    """Floating-point tensors travel as float16."""

    @staticmethod
    def compress(tensor: Any) -> tuple[Tensor, Any]:
        """The tensor as float16, and the type it had."""
        if not isinstance(tensor, Tensor):
            return tensor, None  # it is refused where it is reduced
        floating = tensor.dtype.is_floating_point
        return (tensor.to(torch.float16) if floating else tensor), tensor.dtype

    @staticmethod
    def decompress(tensor: Tensor, ctx: Any) -> Tensor:
        """The tensor in the type it had."""
        return tensor.to(ctx)


class Compression:
    """Names of compressors, as arguments of `DistributedOptimizer` and `allreduce`."""

    none = NoneCompressor
    """Nothing is compressed: the default."""

    fp16 = FP16Compressor
    """Floating-point gradients travel as float16; sums are formed in float32."""

    @staticmethod
    def named(name: str, **options: Any) -> OwnCompressor:
        """A compressor of `acidmpi.compression` for `DistributedOptimizer`.

        Horovod has no such function. `Compression.named("topk", density=0.01)` is the
        same as `acidmpi.TopK(density=0.01)`.

        Raises:
            ConfigError: there is no such compressor, or it has no such option.
        """
        return make(name, **options)


def own(compression: Any) -> OwnCompressor:
    """The compressor of ours that stands for `compression`.

    Raises:
        UnsupportedError: it is a class with `compress` and `decompress` of the user's.
    """
    if compression is NoneCompressor:
        return make("none")
    if compression is FP16Compressor:
        return make("fp16")
    if not hasattr(compression, "start"):
        raise UnsupportedError(
            f"the compression {compression!r} of gradients",
            "pass Compression.none, Compression.fp16, or a compressor of acidmpi, as "
            "Compression.named('topk', density=0.01)",
        )
    found: OwnCompressor = compression
    return found


def by_tensor(compression: Any) -> Any:
    """`compression`, if it can be applied to one tensor.

    Raises:
        UnsupportedError: it is a compressor of ours, which works on whole models.
    """
    if not hasattr(compression, "compress"):
        raise UnsupportedError(
            f"the compression {compression!r} of a single tensor",
            "pass Compression.none or Compression.fp16",
        )
    return compression
