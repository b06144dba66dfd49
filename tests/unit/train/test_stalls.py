"""Stalls on standard error and in a file that several ranks may have written."""

import json
import time

import pytest

from acidmpi.telemetry.stalls import Report, Wait, picture
from acidmpi.train.stalls import StallTeller


def seen_by(rank):
    waits = (Wait("chunk", 2, 4000, 11.0),)
    return picture(rank, [Report(rank, 5, 1.0, waits)], {2: 12.0}, 1.0)


@pytest.fixture
def said():
    return []


def wait_for(ready):
    end = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_is_said_and_written(tmp_path, said):
    path = tmp_path / "stalls.json"
    StallTeller(path, said.append)(seen_by(0))
    wait_for(path.exists)
    assert said[0].startswith("acidmpi: stall: who waits for whom (rank 0, 12 s)\n")
    assert "a chunk of an exchange, 4,000 bytes" in said[0]
    told = json.loads(path.read_text())
    assert told["schema"] == 1
    assert [each["roots"] for each in told["stalls"]] == [[2]]
    assert abs(told["stalls"][0]["unix_seconds"] - time.time()) < 60


def test_another_rank_goes_on_in_the_same_file(tmp_path, said):
    path = tmp_path / "stalls.json"
    for rank in (0, 1):
        StallTeller(path, said.append)(seen_by(rank))
        wait_for(lambda n=rank + 1: path.exists() and len(read(path)) == n)
    assert [each["seen_by"] for each in read(path)] == [0, 1]


def read(path):
    return json.loads(path.read_text())["stalls"]


def test_a_file_that_is_torn_is_begun_again(tmp_path, said):
    path = tmp_path / "stalls.json"
    path.write_text('{"schema": 1, "sta')
    StallTeller(path, said.append)(seen_by(0))
    wait_for(lambda: path.read_text().endswith("}\n"))
    assert len(read(path)) == 1


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path, said):
    StallTeller(tmp_path / "nowhere" / "stalls.json", said.append)(seen_by(0))
    wait_for(lambda: len(said) == 2)
    assert "cannot be written: No such file" in said[1]
