import logging
import tempfile
from pathlib import Path

import pytest

from acidmpi.kernels.cpu import store


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Four empty folders in place of the real ones, as `folders` names them."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.setattr(store, "__file__", str(tmp_path / "package/store.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    cached = (store._private_folder, store._warn, store._environment)
    for function in cached:
        function.cache_clear()
    yield list(store.folders())
    for function in cached:
        function.cache_clear()


def spoil(*folders):
    """Make folders unusable even for root: their parents become files."""
    for folder in folders:
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        folder.parent.write_text("in the way")


def files(folder: Path):
    return sorted(folder.iterdir()) if folder.is_dir() else []


def refuse():
    raise AssertionError("made although it was kept")


def test_code_is_made_once(places):
    assert store.fetch("one", lambda: b"code") == b"code"
    assert store.fetch("one", refuse) == b"code"
    assert [len(files(folder)) for folder in places] == [1, 0, 0, 0]


def test_another_processor_or_source_has_other_names(places, monkeypatch):
    store.fetch("one", lambda: b"code")
    monkeypatch.setattr(store, "_environment", lambda: "another")
    assert store.fetch("one", lambda: b"other") == b"other"


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: b"", lambda c: c + b"!"]
)
def test_damaged_code_is_made_again(places, change):
    store.fetch("one", lambda: b"code")
    (file,) = files(places[0])
    file.write_bytes(change(file.read_bytes()))
    assert store.fetch("one", lambda: b"code again") == b"code again"
    assert store.fetch("one", refuse) == b"code again"


@pytest.mark.parametrize("unusable", [1, 2, 3])
def test_the_next_folder_takes_over(places, unusable, caplog):
    spoil(*places[:unusable])
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            store.fetch(name, lambda: b"code")
            assert store.fetch(name, refuse) == b"code"
    assert len(files(places[unusable])) == 2
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (unusable == 3)
    assert all("set NUMBA_CACHE_DIR" in warning for warning in warnings)


def test_without_any_folder_code_is_made_each_time(places, monkeypatch, caplog):
    spoil(*places[:3])
    monkeypatch.setattr(tempfile, "tempdir", str(places[0]))
    store._private_folder.cache_clear()
    for code in (b"first", b"second"):
        assert store.fetch("one", lambda code=code: code) == code
    assert len(caplog.records) == 1


def test_a_folder_that_somebody_else_prepared_is_not_trusted(places, tmp_path):
    private = places[3]
    private.rmdir()
    (tmp_path / "theirs").mkdir()
    private.symlink_to(tmp_path / "theirs")
    store._private_folder.cache_clear()
    assert private not in store.folders()


def test_the_private_folder_is_private(places):
    places[3].chmod(0o777)
    store._private_folder.cache_clear()
    assert list(store.folders())[3].stat().st_mode & 0o777 == 0o700


def test_no_draft_is_left_when_writing_fails(places, monkeypatch):
    def full(self, target):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert store.fetch("one", lambda: b"code") == b"code"
    assert not any(files(folder) for folder in places)
