"""Configuration files: what is written is read back, what is unknown is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.config.files import read_values, to_toml
from acidmpi.config.options import Option, options_of
from acidmpi.config.train import USED_BY, TrainConfig
from acidmpi.errors import ConfigError

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)


def values_of(option: Option):
    """Values that an option takes."""
    if option.choices:
        values = st.sampled_from(option.choices)
    elif option.kind is bool:
        values = st.booleans()
    elif option.kind is int:
        values = st.integers(1, 10**6)
    elif option.kind is float:
        values = st.floats(1e-6, 0.999)
    elif option.kind is Path:
        values = WORDS.map(lambda word: Path("folder", word.replace("\0", "")))
    else:
        values = WORDS.filter(lambda word: word != "none")
    return values | st.none() if option.nullable else values


def configuration(**values) -> TrainConfig:
    """With the values that the method uses."""
    method = values["method"]
    if values["pairing"] != "handshake":
        values["fault_tolerant"] = False
    return TrainConfig(
        **{n: v for n, v in values.items() if method in USED_BY.get(n, (method,))}
    )


CONFIGS = st.builds(
    configuration,
    **{option.name: values_of(option) for option in options_of(TrainConfig)},
)


def load(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return TrainConfig(**read_values(path, TrainConfig))


@given(CONFIGS)
def test_every_configuration_survives_the_way_through_a_file(tmp_path_factory, config):
    assert load(tmp_path_factory.getbasetemp(), to_toml(config)) == config


def test_keys_may_be_written_with_hyphens(tmp_path):
    text = "comm-rate = 2\nmax_lag = 'none'\nlr = 'none'\n"
    assert load(tmp_path, text) == TrainConfig(comm_rate=2.0, max_lag=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comm_rat = 2", "unknown key 'comm_rat'; did you mean 'comm_rate'?"),
        ("zzz = 2", "unknown key 'zzz'; known keys are task, model"),
        ("resum = true", "unknown key 'resum'"),
        ("comm_rate = 2\ncomm-rate = 3", "'comm_rate' stands twice"),
        ("lr = '0.1'", "--lr must be a number above 0 or 'none', got '0.1'"),
        ("lr = -1", "--lr must be a number above 0 or 'none', got -1"),
        ("[train]\nlr = 1", "unknown key 'train'"),
        ("lr = [1]", "--lr must be a number"),
        ("lr = 1979-05-27", "--lr must be a number"),
        ("lr 0.1", "not valid TOML"),
        (b"task = '\xff'", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "run.toml") in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot be read.*--config"):
        read_values(tmp_path / name, TrainConfig)
