"""What Horovod's `Compression` stands for."""

import pytest
import torch

from acidmpi.compat.horovod.compression import Compression, Compressor, by_tensor, own
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.compression.registry import make
from acidmpi.errors import ConfigError


def test_names_are_compressors_of_ours():
    assert own(Compression.none) == make("none")
    assert own(Compression.fp16) == make("fp16")
    topk = Compression.named("topk", density=0.5)
    assert own(topk) is topk
    assert topk == make("topk", density=0.5)
    with pytest.raises(ConfigError, match="topk"):
        Compression.named("topkk")


def test_single_tensors():
    tensor = torch.tensor([1 / 3])
    for way, dtype in (
        (Compression.none, torch.float32),
        (Compression.fp16, torch.half),
    ):
        small, context = by_tensor(way).compress(tensor)
        assert small.dtype is dtype
        assert way.decompress(small, context).dtype is torch.float32
    whole = torch.tensor([70000])
    small, context = Compression.fp16.compress(whole)
    assert torch.equal(Compression.fp16.decompress(small, context), whole)


def test_what_cannot_be_used_where():
    class Theirs(Compressor):
        """A user's own."""

    with pytest.raises(UnsupportedError, match=r"Compression\.named"):
        own(Theirs)
    with pytest.raises(UnsupportedError, match=r"Compression\.fp16"):
        by_tensor(make("topk"))
    assert by_tensor(Theirs).compress(1) == (1, None)
