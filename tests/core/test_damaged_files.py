"""Stored files that were damaged anywhere, written by many at once, or made under other conditions."""

import itertools
import multiprocessing
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from signals_core.calendar import sessions_between
from signals_core.errors import DamagedFile
from signals_core.frame_store import EVER, FrameStore, months_of

INDEX = sessions_between("XNYS", date(2021, 1, 1), date(2021, 5, 1)).rename("date")
FRAME = pd.DataFrame(
    np.random.default_rng(5).normal(size=(len(INDEX), 8)), index=INDEX, columns=[f"feature_{n}" for n in range(8)]
)
WANTED = {month: f"made of {month}" for month in dict.fromkeys(months_of(INDEX))}
STEP = 37


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = FrameStore(tmp_path_factory.mktemp("sound"), {"code": "c", "settings": "s"})
    store.save("AAA", FRAME, WANTED)
    return store.folder / "symbol=AAA" / "year=2021.parquet"


def damaged_files(sound: Path, folder: Path, step: int, masks: tuple[int, ...]) -> Iterator[tuple[int, FrameStore]]:
    """A store of one file with one byte changed, again and again."""
    content = sound.read_bytes()
    path = folder / "symbol=AAA" / "year=2021.parquet"
    path.parent.mkdir(parents=True)
    for position, mask in itertools.product(range(0, len(content), step), masks):
        for leftover in path.parent.iterdir():
            leftover.unlink()
        path.write_bytes(content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :])
        yield position, FrameStore(folder)


EXPECTED = FRAME.astype("float32")


def check_damage(sound: Path, folder: Path, step: int, masks: tuple[int, ...]) -> None:
    recognised = harmless = 0
    for position, store in damaged_files(sound, folder, step, masks):
        trusted = store.digests("AAA") == WANTED
        try:
            found = store.load("AAA", *EVER, list(FRAME.columns))
        except DamagedFile:
            recognised += 1
        else:
            if trusted:  # nothing tells a reader not to believe it
                pd.testing.assert_frame_equal(found, EXPECTED, check_freq=False, obj=f"byte {position}")
            harmless += 1
        current = store.bring_up_to_date("AAA", WANTED, list(FRAME.columns), lambda _: FRAME)
        pd.testing.assert_frame_equal(current.frame, EXPECTED, check_freq=False, obj=f"byte {position} made again")
        again = store.bring_up_to_date("AAA", WANTED, list(FRAME.columns), lambda _: FRAME)
        assert again.computed == ()
        pd.testing.assert_frame_equal(again.frame, EXPECTED, check_freq=False, obj=f"byte {position} stored again")
    assert recognised > harmless


def test_a_changed_byte_is_recognised_or_harmless(sound: Path, tmp_path: Path) -> None:
    check_damage(sound, tmp_path / "damaged", STEP, (0xFF,))


@pytest.mark.slow
def test_any_changed_bit_is_recognised_or_harmless(sound: Path, tmp_path: Path) -> None:
    check_damage(sound, tmp_path / "damaged", 1, (0x01,))


@pytest.mark.parametrize(
    ("old", "new"), [(b'"months"', b'"mnths!"'), (b"2021-03", b"2021-02"), (b"of 2021", b"of 2012")]
)
def test_what_a_file_says_of_itself_cannot_be_changed(sound: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "symbol=AAA" / "year=2021.parquet"
    path.parent.mkdir(parents=True)
    table = pq.ParquetFile(sound).read()
    told = {key: text.replace(old, new) for key, text in table.schema.metadata.items()}
    assert told != table.schema.metadata
    pq.write_table(table.replace_schema_metadata(told), path)
    store = FrameStore(tmp_path)
    assert store.digests("AAA") == {}
    assert store.bring_up_to_date("AAA", WANTED, list(FRAME.columns), lambda _: FRAME).computed == tuple(WANTED)


def test_every_type_of_column_is_served_as_it_was_written(tmp_path: Path) -> None:
    moments = INDEX + pd.Timedelta(21, "h")
    nans = np.frombuffer(np.full(len(INDEX), 0x7FC0BEEF, dtype="uint32").tobytes(), dtype="float32")
    frame = pd.DataFrame(
        {"a": np.arange(len(INDEX), dtype="int8"), "b": moments, "c": moments.as_unit("s"), "d": moments.as_unit("ns"),
         "e": [None, "text"] * (len(INDEX) // 2), "f": moments.month == 2, "g": nans},
        index=INDEX,
    )  # fmt: skip
    store = FrameStore(tmp_path)
    store.save("AAA", frame, WANTED)
    found = store.load("AAA", *EVER)
    assert found is not None
    pd.testing.assert_frame_equal(found, frame, check_freq=False, check_dtype=False)
    assert store.load("AAA", *EVER, ["d", "g"]) is not None


def test_a_file_cut_short_anywhere_is_made_again(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    path = tmp_path / "symbol=AAA" / "year=2021.parquet"
    path.parent.mkdir(parents=True)
    for length in [*range(0, len(content), len(content) // 40), len(content) - 1]:
        path.write_bytes(content[:length])
        store = FrameStore(tmp_path)
        assert store.digests("AAA") == {}
        current = store.bring_up_to_date("AAA", WANTED, list(FRAME.columns), lambda _: FRAME)
        assert current.computed == tuple(WANTED)
        assert FrameStore(tmp_path).digests("AAA") == WANTED


def _write_month(folder: str, month: str, times: int) -> None:
    rows = FRAME[months_of(INDEX) == month]
    for number in range(times):
        FrameStore(Path(folder)).save("AAA", rows + number, {month: f"{month} version {number}"})


def test_several_writers_of_different_months_lose_nothing(tmp_path: Path) -> None:
    """And a reader meanwhile sees whole months, each of one version."""
    times, months = 5, list(WANTED)[:3]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_month, args=(str(tmp_path), month, times)) for month in months]
    for writer in writers:
        writer.start()
    store, looks = FrameStore(tmp_path), 0
    while any(writer.is_alive() for writer in writers):
        found = store.load("AAA", *EVER)
        if found is not None:
            looks += 1
            version = (found - FRAME.loc[found.index]).round(3)
            by_month = version.groupby(months_of(found.index))
            assert (by_month.max() == by_month.min()).all(axis=None)
            whole = pd.Series(months_of(INDEX)).value_counts()
            assert (by_month.size() == whole[by_month.size().index]).all()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert looks > 0
    last = FrameStore(tmp_path)
    assert last.digests("AAA") == {month: f"{month} version {times - 1}" for month in months}
    expected = FRAME[np.isin(months_of(INDEX), months)] + (times - 1)
    pd.testing.assert_frame_equal(last.load("AAA", *EVER), expected.astype("float32"), check_freq=False)
    assert [p.name for p in (tmp_path / "symbol=AAA").iterdir() if p.suffix == ".tmp"] == []


def test_a_file_in_the_place_of_another_years_is_not_served(sound: Path, tmp_path: Path) -> None:
    """Copied by hand from another year or symbol: its months are not those of its name."""
    shutil.copytree(sound.parent, tmp_path / "symbol=AAA")
    own = tmp_path / "symbol=AAA"
    shutil.copy(own / "year=2021.parquet", own / "year=2020.parquet")
    store = FrameStore(tmp_path)
    current = store.bring_up_to_date("AAA", WANTED, list(FRAME.columns), lambda _: FRAME)
    pd.testing.assert_frame_equal(current.frame, EXPECTED, check_freq=False)
