"""Sets on disk: what is whole is read, whatever else is not, and it is said why."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from acidmpi.checkpoint import files, sets
from acidmpi.checkpoint.files import Damaged, read_json, write_json
from acidmpi.checkpoint.sets import Manifest, Mark, Sets, newest
from acidmpi.checkpoint.tree import pack
from acidmpi.errors import ConfigError

SIZE = 2


def tree_of(number, rank):
    chance = np.random.default_rng([number, rank])
    return {
        "x": chance.standard_normal(40),
        "bits": chance.integers(0, 2**16, 7, dtype=np.uint16),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.array(rank, np.int64),
        "who": [number, rank],
    }


def manifest_of(number, session="a", **changes):
    fields = {
        "mark": Mark(session=session, number=number),
        "size": SIZE,
        "members": tuple(range(SIZE)),
        "total_gradients": 10 * number,
        "identity": {"task": "digits"},
        "written": "2026-01-01T00:00:00",
    }
    return Manifest(**fields | changes)


def fill(path, numbers=(1, 2), session="a"):
    found = Sets(path)
    for number in numbers:
        manifest = manifest_of(number, session)
        for rank in range(SIZE):
            found.write(manifest.mark, rank, pack(tree_of(number, rank)))
        found.seal(manifest)
    return found


def check(tree):
    number, rank = tree["who"]
    for name, array in pack(tree_of(number, rank)).arrays.items():
        found = tree[name[1:]]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
    return number, rank


def load(found):
    """As a resumed run does: the newest set whose parts are all whole."""
    said = []
    for manifest in newest(found, said.append):
        try:
            trees = [found.read(manifest, rank) for rank in manifest.members]
        except Damaged as error:
            said.append(str(error))
            continue
        for rank, tree in enumerate(trees):
            assert check(tree) == (manifest.mark.number, rank)
        return manifest.mark.number, said
    return None, said


def test_a_set_is_read_as_it_was_written(tmp_path):
    found = fill(tmp_path)
    assert load(found) == (2, [])
    assert found.plain(manifest_of(2), 1)["who"] == [2, 1]


def test_the_format_is_one_that_others_read(tmp_path):
    found = fill(tmp_path)
    path = found.folder(1) / "rank-0.safetensors"
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {"/x", "/bits", "/flags", "/none", "/scalar"}


def test_without_a_manifest_a_set_is_passed_over(tmp_path):
    found = fill(tmp_path)
    (found.folder(2) / "manifest.json").unlink()
    number, said = load(found)
    assert number == 1
    assert "not complete" in said[0]


def test_an_empty_folder_has_no_sets(tmp_path):
    assert load(Sets(tmp_path / "nowhere")) == (None, [])


def test_survivors_make_a_set(tmp_path):
    found = fill(tmp_path, numbers=(1,))
    (found.folder(1) / "rank-0.json").unlink()
    found.seal(manifest_of(1, members=(1,)))
    (manifest,) = newest(found, pytest.fail)
    assert check(found.read(manifest, 1)) == (1, 1)


def corrupt(chance, root):
    """One random misfortune; returns a text for the log."""
    everything = sorted(p for p in root.rglob("*") if p.is_file())
    path = everything[chance.integers(len(everything))]
    match chance.integers(5):
        case 0:
            os.truncate(path, int(chance.integers(path.stat().st_size)))
            return f"truncated {path}"
        case 1:
            data = bytearray(path.read_bytes())
            for _ in range(chance.integers(1, 4)):
                data[chance.integers(len(data))] ^= 1 << int(chance.integers(8))
            path.write_bytes(data)
            return f"flipped {path}"
        case 2:
            other = everything[chance.integers(len(everything))]
            first, second = path.read_bytes(), other.read_bytes()
            path.write_bytes(second)
            other.write_bytes(first)
            return f"swapped {path} and {other}"
        case 3:
            path.unlink()
            return f"removed {path}"
        case _:
            data = path.read_bytes()
            path.write_bytes(data + chance.bytes(int(chance.integers(1, 30))))
            return f"lengthened {path}"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template")
    fill(root / "sets")
    fill(root / "sets" / "of another session", session="b")
    return root / "sets"


@pytest.mark.parametrize("block", range(4))
def test_no_corrupted_set_is_loaded_wrongly(template, tmp_path, block, monkeypatch):
    """200 corruptions: what is loaded is what was written, or it is said why not."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    used = []
    for case in range(50):
        chance = np.random.default_rng([block, case])
        root = tmp_path / str(case)
        shutil.copytree(template, root)
        before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
        done = [corrupt(chance, root) for _ in range(chance.integers(1, 3))]
        same = all(p.exists() and p.read_bytes() == b for p, b in before.items())
        elsewhere = all("another session" in text.split(" and ")[0] for text in done)
        number, said = load(Sets(root))
        assert number == 2 or said, done
        if number == 2 and not (same or elsewhere):
            assert all("set-000001" in t or "another" in t for t in done), done
        used.append(number)
        shutil.rmtree(root)
    assert {1, 2} <= set(used)


def test_planted_fault_files_that_do_not_say_what_they_are(tmp_path, monkeypatch):
    """Without the mark in each file, a swap between ranks is loaded."""
    found = fill(tmp_path)
    folder = found.folder(2)
    for kind in ("json", "safetensors"):
        first, second = (folder / f"rank-{rank}.{kind}" for rank in range(2))
        held = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(held)
    assert load(found)[0] == 1
    monkeypatch.setattr(sets, "_own", lambda path, mark, rank: sets._checked(path))
    with pytest.raises(AssertionError):
        load(found)


def test_planted_fault_arrays_without_checksums(tmp_path, monkeypatch):
    found = fill(tmp_path)
    path = found.folder(2) / "rank-0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert load(found)[0] == 1
    monkeypatch.setattr(files, "_verify", lambda path, checks: None)
    with pytest.raises(AssertionError):
        load(found)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    found = fill(tmp_path, numbers=(1,))

    def full(self, piece):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files._Sink, "write", full)
    with pytest.raises(OSError, match="No space"):
        found.write(Mark(session="a", number=2), 0, pack(tree_of(2, 0)))
    assert list(found.folder(2).iterdir()) == []
    assert load(found)[0] == 1


def test_a_newer_schema_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    found = fill(tmp_path, numbers=(1,))
    with monkeypatch.context() as later:
        later.setattr(sets, "SCHEMA", 2)
        fill(tmp_path, numbers=(2,))
    with pytest.raises(ConfigError, match=r"schema 1 or less, got 2.*newer version"):
        load(found)


def test_a_manifest_of_another_set_is_seen(tmp_path):
    found = fill(tmp_path)
    shutil.copy(found.folder(1) / "manifest.json", found.folder(2))
    number, said = load(found)
    assert number == 1
    assert "is of set 1, not 2" in said[0]


def test_old_sets_are_removed_rank_by_rank(tmp_path):
    found = fill(tmp_path)
    found.remove(1, 1, leads=False)
    assert [p.name for p in sorted(found.folder(1).iterdir())] == [
        "manifest.json",
        "rank-0.json",
        "rank-0.safetensors",
    ]
    found.remove(1, 0, leads=True)
    assert found.numbers() == [2]
    found.remove(1, 1, leads=False)  # there is nothing left of it


def test_the_leader_removes_what_ranks_of_earlier_starts_have_left(tmp_path):
    found = fill(tmp_path)
    found.remove(1, 0, leads=True)
    assert found.numbers() == [2]


def test_json_that_is_not_ours(tmp_path):
    path = Path(tmp_path / "x.json")
    texts = ("[]", "{}", "[" * 100_000, "\xff", '{"sha256": 1}', '{"a": 1e999}')
    for text in (*texts, '{"a": NaN}'):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(Damaged, match=r"torn or changed"):
            read_json(path)
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
