"""Atomic writes, the lock, the journal's append and the sweep."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from signals_core.files import append_line, locked, new_directory, sweep_temporaries, write_atomic, write_bytes_atomic

_INCREMENTS = 25


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_bytes_atomic(path, b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(path, fail)

    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["a.txt"]


def test_the_old_content_is_served_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_bytes_atomic(path, b"old")
    seen = []

    def slowly(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        seen.append(path.read_bytes())
        temporary.write_bytes(b"new")

    write_atomic(path, slowly)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_a_directory_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with new_directory(tmp_path / "v1") as folder:
        (folder / "model.ubj").write_bytes(b"x")
        assert not (tmp_path / "v1").exists()
    assert names(tmp_path / "v1") == ["model.ubj"]

    def fill_and_fail() -> None:
        with new_directory(tmp_path / "v2") as folder:
            (folder / "model.ubj").write_bytes(b"x")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fill_and_fail()
    assert names(tmp_path) == ["v1"]


def test_a_directory_is_never_overwritten(tmp_path: Path) -> None:
    with new_directory(tmp_path / "v1") as folder:
        (folder / "model.ubj").write_bytes(b"first")
    with pytest.raises(FileExistsError, match="v1 exists already"), new_directory(tmp_path / "v1") as folder:
        (folder / "model.ubj").write_bytes(b"second")
    assert (tmp_path / "v1" / "model.ubj").read_bytes() == b"first"
    assert names(tmp_path) == ["v1"]


def test_a_line_cut_short_is_removed_by_the_next_append(tmp_path: Path) -> None:
    journal = tmp_path / "sub" / "journal.jsonl"
    append_line(journal, '{"a": 1}')
    with journal.open("ab") as file:
        file.write(b'{"b": ')  # the power fails here
    append_line(journal, '{"c": "é"}')
    assert journal.read_text(encoding="utf-8").splitlines() == ['{"a": 1}', '{"c": "é"}']


def _increment(folder: Path) -> None:
    counter = folder / "counter"
    for _ in range(_INCREMENTS):
        with locked(folder / ".counter.lock"):
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))


def test_two_processes_under_the_lock_lose_no_update(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_increment, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "counter").read_text() == str(2 * _INCREMENTS)


def test_the_sweep_takes_old_temporaries_and_nothing_else(tmp_path: Path) -> None:
    yesterday = time.time() - 86_400
    old_file = tmp_path / "a" / ".x.parquet.123.tmp"
    old_folder = tmp_path / ".v1.456.tmp"
    fresh = tmp_path / ".y.parquet.789.tmp"
    kept = tmp_path / "a" / "x.parquet"
    old_file.parent.mkdir()
    old_folder.mkdir()
    (old_folder / "model.ubj").write_bytes(b"x")
    for path in (old_file, fresh, kept):
        path.write_bytes(b"x")
    for path in (old_file, old_folder, kept):
        os.utime(path, (yesterday, yesterday))

    assert sweep_temporaries(tmp_path) == 2
    assert (fresh.exists(), kept.exists()) == (True, True)
    assert (old_file.exists(), old_folder.exists()) == (False, False)
