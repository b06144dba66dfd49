"""Names, options, and compressors of other packages."""

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from acidmpi.compression import registry
from acidmpi.compression.dense import Cast, NoCompression
from acidmpi.compression.registry import make, names
from acidmpi.compression.sparse import RandomK, TopK
from acidmpi.errors import ConfigError


@dataclass(frozen=True)
class Foreign:
    strength: int = 1

    @property
    def name(self):
        return "foreign"


@pytest.fixture
def installed(monkeypatch):
    point = EntryPoint("foreign", f"{__name__}:Foreign", registry.GROUP)
    taken = EntryPoint("topk", f"{__name__}:Foreign", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: (point, taken))
    monkeypatch.setattr(EntryPoint, "load", lambda self: Foreign)


def test_names_and_what_they_make():
    assert names() == (
        *("none", "fp16", "bf16", "topk", "randomk", "randomblock", "signnorm"),
        *("signvote", "efsign", "qsgd", "terngrad", "onebit", "powersgd", "acpsgd"),
    )
    assert make("none") == NoCompression()
    assert make("bf16") == Cast("bfloat16")
    assert make("topk", density=0.5) == TopK(density=0.5)
    assert make("randomblock", density=0.5) == RandomK(density=0.5, block=True)


def test_the_page_lists_all():
    page = Path(__file__).parents[3].joinpath("docs/compression.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| `(\w+)", page, re.MULTILINE)
    assert dict(listed) == {name: type(make(name)).__name__ for name in names()}


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(ConfigError, match=r"none, fp16, .*acpsgd, got 'zip'"):
        make("zip")


def test_unknown_options_are_told_the_known_ones():
    with pytest.raises(
        ConfigError, match="'topk' takes density, scope, error_feedback"
    ):
        make("topk", matrix_rank=3)
    with pytest.raises(ConfigError, match="'none' takes no options, got density"):
        make("none", density=0.1)
    with pytest.raises(ConfigError, match="'fp16' takes no options, got dtype"):
        make("fp16", dtype="bfloat16")


def test_values_are_checked_by_the_compressor():
    with pytest.raises(ConfigError, match="density"):
        make("topk", density=2)


@pytest.mark.usefixtures("installed")
def test_other_packages_add_names_but_take_none():
    assert names()[-2:] == ("acpsgd", "foreign")
    assert make("foreign", strength=3) == Foreign(3)
    assert make("topk") == TopK()
    with pytest.raises(ConfigError, match="'foreign' takes strength"):
        make("foreign", density=1)
