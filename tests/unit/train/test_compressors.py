"""From options to a compressor: what is given is passed on, what is not stays its own."""

import pytest

from acidmpi.compression.dense import NoCompression
from acidmpi.compression.lowrank import ACPSGD, PowerSGD
from acidmpi.compression.quantised import QSGD
from acidmpi.compression.registry import names
from acidmpi.compression.sparse import RandomK, TopK
from acidmpi.config.options import options_of
from acidmpi.config.train import TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.train.compressors import check_compression, make_compressor


def config(**options):
    return TrainConfig(method="allreduce", **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, NoCompression()),
        ({"compression": "topk"}, TopK()),
        ({"compression": "topk", "density": 0.25}, TopK(density=0.25)),
        ({"compression": "randomblock"}, RandomK(block=True)),
        ({"compression": "qsgd", "bits": 4}, QSGD(bits=4)),
        (
            {"compression": "powersgd", "matrix_rank": 2, "start_step": 3},
            PowerSGD(matrix_rank=2, start_step=3),
        ),
        ({"compression": "acpsgd", "matrix_rank": 1}, ACPSGD(matrix_rank=1)),
    ],
)
def test_given_options_reach_the_compressor(options, expected):
    assert make_compressor(config(**options)) == expected


@pytest.mark.parametrize("name", names())
def test_every_name_is_made_and_told(name):
    assert make_compressor(config(compression=name)).name == name
    (option,) = (o for o in options_of(TrainConfig) if o.name == "compression")
    assert name in option.explanation


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"density": 0.1}, "got density"),
        ({"compression": "topk", "bits": 3}, "got bits"),
        ({"compression": "fp16", "matrix_rank": 3}, "got matrix_rank"),
        ({"compression": "topkk"}, "'topkk'"),
    ],
)
def test_what_a_compressor_does_not_take_is_told_before_anything_is_made(options, text):
    with pytest.raises(ConfigError, match=text):
        check_compression(config(**options))


def test_other_methods_have_nothing_to_check():
    for method in ("a2cid2", "async", "localsgd"):
        check_compression(TrainConfig(method=method))
