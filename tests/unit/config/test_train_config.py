"""The training configuration: frozen, checked on construction, each field explained."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.config.options import above, at_least, between, options_of
from acidmpi.config.train import USED_BY, TrainConfig
from acidmpi.errors import ConfigError

OPTIONS = options_of(TrainConfig)
NAMES = [option.name for option in OPTIONS]

WRONG = {
    "task": ["svhn", "", 3, None],
    "model": ["", 3, True],
    "method": ["dpsgd", None],
    "compression": ["", None, 3],
    "fault": ["", 3],
    "matrix_rank": [0, 1.5],
    "density": [0, -1, 1.01, math.nan],
    "bits": [0, 2.5],
    "start_step": [-1, 0.5],
    "bucket_bytes": [-1, 0.5, None],
    "local_steps": [0, 1.5, None],
    "topology": ["", 3],
    "comm_rate": [-1, math.nan, math.inf, "fast", None, True],
    "max_lag": [-1, 1.5, True],
    "pairing": ["random"],
    "progress": ["process"],
    "transport": ["mpi", "cuda"],
    "chunk_bytes": [0, 0.5, None],
    "message_bytes": [0, 0.5, "whole"],
    "device": ["gpu", "cuda:0"],
    "batch_size": [0, -3, 2.5],
    "lr": [0, -0.1, math.nan, "0.1", 10**400],
    "momentum": [1, -0.1, math.nan],
    "weight_decay": [-1e-4, math.inf],
    "epochs": [0, -1, math.inf],
    "evaluate_every": [0],
    "nonfinite": ["ignore"],
    "clip": [0, math.nan],
    "seed": [-1, 0.5, 2**32, None],
    "data_dir": [3, ""],
    "dirichlet": [0],
    "heterogeneity": [-0.1, math.nan, math.inf],
    "subset": [0],
    "safety": [-0.1, 1.1, math.nan],
    "deadline_seconds": [0, math.inf],
    "checkpoint_every": [0, -1],
    "resume": ["", 3, True],
    "output": [False],
    "fault_tolerant": [1, "yes", None],
    "overwrite": [1, "yes", None],
    "log_seconds": [0],
}


def test_every_field_has_values_that_it_must_refuse():
    assert sorted(WRONG) == sorted(NAMES)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]]
)
def test_an_error_names_the_option_the_rule_and_the_value(name, value):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{name: value})
    option = next(option for option in OPTIONS if option.name == name)
    text = str(caught.value)
    assert text.startswith(f"{option.flag} must be {option.wanted}, got ")
    assert repr(value) in text


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 0.1


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_explained_in_a_sentence(name):
    (option,) = (option for option in OPTIONS if option.name == name)
    assert option.explanation.endswith(".")
    assert option.explanation[0].isupper() or option.explanation.startswith("a2cid2")


@pytest.mark.parametrize("name", NAMES)
def test_defaults_pass_their_own_check(name):
    (option,) = (option for option in OPTIONS if option.name == name)
    assert option.check(option.default) == option.default


def test_values_get_the_type_of_their_field():
    config = TrainConfig(lr=1, epochs=3, data_dir="somewhere")
    assert type(config.lr) is float
    assert config.data_dir == Path("somewhere")


def test_a_word_close_to_a_choice_is_answered_with_it():
    with pytest.raises(ConfigError, match="did you mean 'handshake'"):
        TrainConfig(pairing="handshakes")


@pytest.mark.parametrize(
    "method", ["a2cid2", "async", "adpsgd", "gossip", "allreduce", "localsgd"]
)
def test_options_that_the_method_would_ignore_are_refused_unless_left_alone(method):
    given = {
        "topology": "star",
        "comm_rate": 2.0,
        "max_lag": None,
        "pairing": "fifo",
        "safety": 0.5,
        "chunk_bytes": 1 << 20,
        "message_bytes": 61440,
        "compression": "topk",
        "matrix_rank": 2,
        "density": 0.1,
        "bits": 4,
        "start_step": 10,
        "bucket_bytes": 0,
        "local_steps": 2,
        "fault_tolerant": True,
    }
    assert given.keys() == USED_BY.keys()
    for name, value in given.items():
        option = next(option for option in OPTIONS if option.name == name)
        assert TrainConfig(method=method, **{name: option.default})
        if method in USED_BY[name]:
            assert getattr(TrainConfig(method=method, **{name: value}), name) == value
            continue
        told = f"{option.flag} is for --method .*got {value!r} with --method {method}"
        with pytest.raises(ConfigError, match=told):
            TrainConfig(method=method, **{name: value})


def test_none_lifts_the_lag_and_stands_for_the_tasks_own_value():
    config = TrainConfig(max_lag=None, lr=None)
    assert config.max_lag is None
    assert config.lr is None


@given(st.floats(allow_nan=True), st.floats(-1e3, 1e3))
def test_a_bound_holds_only_for_finite_numbers_on_its_side(value, low):
    for bound, inside in (
        (at_least(low), value >= low),
        (above(low), value > low),
        (at_least(low, below=low + 1), low <= value < low + 1),
        (between(low, low + 1), low <= value <= low + 1),
    ):
        assert bound.holds(value) == (inside and value <= 2**63)


@given(st.integers(1, 10**6))
def test_the_words_of_a_number_are_read_back(number):
    (option,) = (option for option in OPTIONS if option.name == "batch_size")
    assert option.parse(str(number)) == number
    assert option.parse("None") is None
