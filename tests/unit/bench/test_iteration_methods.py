"""Which methods take part, and what is refused before anything is built."""

import pytest

from acidmpi.bench.iteration_methods import ALIASES, TAKEN, chosen
from acidmpi.bench.options import IterationOptions
from acidmpi.compression import registry
from acidmpi.errors import ConfigError


def names(**options):
    return chosen(IterationOptions(**options))


def test_rivals_come_first_and_nobody_twice():
    assert names(methods="ssgd, topk") == ["none", "ddp", "ssgd", "topk"]
    assert names(method="ddp") == ["none", "ddp"]
    assert names(methods="topk,topk", rivals=False) == ["topk"]
    assert names(method="acpsgd") == ["none", "ddp", "ddp-powersgd", "acpsgd"]


def test_one_method_goes_before_several():
    assert names(method="topk", methods="qsgd", rivals=False) == ["topk"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "topkk"}, "did you mean 'topk'"),
        ({"methods": "ssgd,,topk"}, "got ''"),
        ({"method": "acpsgd", "warmup": 2, "start_step": 5}, "at least 5, got 2"),
        ({"method": "ddp-powersgd", "warmup": 1, "start_step": 0}, "at least 2, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        names(**options)


def test_every_option_goes_to_a_compressor_that_takes_it():
    options = IterationOptions()
    for name, taken in TAKEN.items():
        registry.make(name, **{option: getattr(options, option) for option in taken})
    for name in ALIASES.values():
        registry.make(name)
