"""The run's folder: never an earlier run overwritten by mistake, one message if not."""

from datetime import datetime

import pytest

from acidmpi.config.files import read_values
from acidmpi.config.train import TrainConfig
from acidmpi.errors import ConfigError, DataError
from acidmpi.train.folder import RunFolder, create, join, write_config

NOON = datetime(2026, 1, 2, 12, 30, 45)


def test_a_folder_is_named_after_task_method_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(method="async")
    first, second = create(config, NOON), create(config, NOON)
    assert str(first.path) == "runs/digits-async-20260102-123045"
    assert str(second.path) == "runs/digits-async-20260102-123045-2"
    assert list(second.path.iterdir()) == []


@pytest.mark.parametrize("left", ["summary.json", "config.toml", "metrics-3.jsonl"])
def test_an_earlier_run_is_not_overwritten(tmp_path, left):
    (tmp_path / left).write_text("old")
    with pytest.raises(ConfigError, match=rf"{left}.*--output.*--overwrite"):
        create(TrainConfig(output=tmp_path), NOON)
    assert (tmp_path / left).read_text() == "old"


def test_overwrite_removes_the_files_of_the_earlier_run_and_no_others(tmp_path):
    ours = ("summary.json", "config.toml", "metrics-9.jsonl", "stalls.json")
    for name in (*ours, "notes.txt"):
        (tmp_path / name).write_text("old")
    create(TrainConfig(output=tmp_path, overwrite=True), NOON)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_with_other_files_is_taken(tmp_path):
    (tmp_path / "job.log").touch()
    assert create(TrainConfig(output=tmp_path), NOON) == RunFolder(tmp_path)


def test_parents_are_made(tmp_path):
    path = tmp_path / "a" / "b"
    assert create(TrainConfig(output=path), NOON).path.is_dir()
    assert join(tmp_path / "c" / "d").path.is_dir()


@pytest.mark.parametrize("make", [lambda p: create(TrainConfig(output=p), NOON), join])
def test_a_folder_that_cannot_be_made_is_one_error_with_a_cure(tmp_path, make):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/run cannot be written.*--output"):
        make(tmp_path / "file" / "run")


def test_the_configuration_that_is_written_gives_the_same_run(tmp_path):
    config = TrainConfig(output=tmp_path, lr=0.25, max_lag=None)
    folder = create(config, NOON)
    write_config(folder, config)
    assert TrainConfig(**read_values(folder.config, TrainConfig)) == config


def test_a_configuration_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(DataError, match=r"gone cannot be written"):
        write_config(RunFolder(tmp_path / "gone"), TrainConfig())
