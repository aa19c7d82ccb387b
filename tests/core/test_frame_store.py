"""Frames by month in Parquet files: what is replaced, what stays, and damage."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from signals_core.calendar import sessions_between
from signals_core.errors import DataError
from signals_core.frame_store import FrameStore, months_of

EVER = (date(1900, 1, 1), date(2200, 1, 1))


def frame_of(start: str, end: str, value: float = 0.0) -> pd.DataFrame:
    index = sessions_between("XNYS", pd.Timestamp(start).date(), pd.Timestamp(end).date()).rename("date")
    return pd.DataFrame(
        {"x": np.arange(len(index), dtype="float64") + value, "n": np.arange(len(index), dtype="int8")}, index=index
    )


def digests_of(frame: pd.DataFrame, value: str = "d") -> dict[str, str]:
    return {month: f"{value}-{month}" for month in months_of(pd.DatetimeIndex(frame.index))}


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """Three months over a year's end: 2012-11, 2012-12 and 2013-01."""
    filled = FrameStore(tmp_path / "frames")
    frame = frame_of("2012-11-01", "2013-02-01")
    filled.save("AAA", frame, digests_of(frame))
    return filled


def test_what_was_saved_comes_back_with_floats_halved(store: FrameStore) -> None:
    found = store.load("AAA", *EVER)
    expected = frame_of("2012-11-01", "2013-02-01").astype({"x": "float32"})
    pd.testing.assert_frame_equal(found, expected, check_freq=False)
    assert [str(t) for t in found.dtypes] == ["float32", "int8"]
    assert found.index.dtype == "datetime64[us]"


def test_replacing_a_month_keeps_the_others(store: FrameStore) -> None:
    before = store.load("AAA", *EVER)
    store.save("AAA", frame_of("2012-11-01", "2013-02-01", value=1000), {"2012-12": "new"})
    after = store.load("AAA", *EVER)
    december = months_of(after.index) == "2012-12"
    pd.testing.assert_frame_equal(after[~december], before[~december])
    assert (after.loc[december, "x"] == before.loc[december, "x"] + 1000).all()
    assert store.digests("AAA") == {"2012-11": "d-2012-11", "2012-12": "new", "2013-01": "d-2013-01"}


def test_a_month_of_another_year_leaves_the_other_file_untouched(store: FrameStore) -> None:
    path = store.folder / "symbol=AAA" / "year=2012.parquet"
    before = path.stat().st_mtime_ns, path.read_bytes()
    store.save("AAA", frame_of("2013-01-01", "2013-02-01", value=5), {"2013-01": "new"})
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_month_that_lost_its_rows_is_emptied(store: FrameStore) -> None:
    store.save("AAA", frame_of("2012-11-01", "2012-12-01"), {"2012-12": "no bars any more"})
    found = store.load("AAA", *EVER)
    assert set(months_of(found.index)) == {"2012-11", "2013-01"}
    assert store.digests("AAA")["2012-12"] == "no bars any more"


def test_the_span_includes_its_start_and_not_its_end(store: FrameStore) -> None:
    found = store.load("AAA", date(2012, 12, 28), date(2013, 1, 3))
    assert list(found.index.strftime("%Y-%m-%d")) == ["2012-12-28", "2012-12-31", "2013-01-02"]
    assert list(store.load("AAA", *EVER, ["n"]).columns) == ["n"]


def test_what_was_never_saved_is_none(store: FrameStore) -> None:
    assert store.load("BBB", *EVER) is None
    assert store.load("AAA", date(2015, 1, 1), date(2016, 1, 1)) is None
    assert store.digests("BBB") == {}


def test_saving_month_by_month_in_any_order_writes_the_same_bytes(tmp_path: Path) -> None:
    frame = frame_of("2012-01-01", "2013-01-01")
    digests = digests_of(frame)
    once, piecewise = FrameStore(tmp_path / "once"), FrameStore(tmp_path / "piecewise")
    once.save("AAA", frame, digests)
    for month in reversed(digests):
        piecewise.save("AAA", frame, {month: digests[month]})
    name = Path("symbol=AAA") / "year=2012.parquet"
    assert (once.folder / name).read_bytes() == (piecewise.folder / name).read_bytes()


def test_a_damaged_file_is_refused_by_name_and_counts_as_absent(store: FrameStore) -> None:
    path = store.folder / "symbol=AAA" / "year=2012.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"year=2012\.parquet is damaged"):
        store.load("AAA", *EVER)
    assert list(store.digests("AAA")) == ["2013-01"]
    assert store.load("AAA", date(2013, 1, 1), date(2014, 1, 1)) is not None


def damage_and_save_again(store: FrameStore) -> None:
    path = store.folder / "symbol=AAA" / "year=2012.parquet"
    path.write_bytes(b"not a parquet file")
    frame = frame_of("2012-11-01", "2013-01-01")
    store.save("AAA", frame, digests_of(frame, "again"))


def test_a_damaged_file_is_set_aside_and_not_deleted(store: FrameStore) -> None:
    damage_and_save_again(store)
    aside = [p for p in (store.folder / "symbol=AAA").iterdir() if p.read_bytes() == b"not a parquet file"]
    assert len(aside) == 1
    assert store.digests("AAA")["2012-11"] == "again-2012-11"
    assert len(store.load("AAA", *EVER)) == len(frame_of("2012-11-01", "2013-02-01"))


def test_a_file_set_aside_does_not_stop_other_readers(store: FrameStore) -> None:
    damage_and_save_again(store)
    assert len(pd.read_parquet(store.folder)) == len(frame_of("2012-11-01", "2013-02-01"))


def test_months_written_with_other_columns_count_as_missing(store: FrameStore) -> None:
    wider = frame_of("2012-12-01", "2013-01-01").assign(y=1.0)
    store.save("AAA", wider, {"2012-12": "wider"})
    assert store.digests("AAA") == {"2012-12": "wider", "2013-01": "d-2013-01"}
    assert list(store.load("AAA", date(2012, 1, 1), date(2012, 12, 31)).columns) == ["x", "n", "y"]


def test_any_parquet_reader_opens_the_folder(store: FrameStore) -> None:
    frame = frame_of("2012-11-01", "2013-02-01")
    store.save("BBB", frame, digests_of(frame))
    table = ds.dataset(store.folder, partitioning="hive").to_table().to_pandas()
    assert table.groupby("symbol").size().to_dict() == {"AAA": len(frame), "BBB": len(frame)}
    assert len(pd.read_parquet(store.folder / "symbol=BBB" / "year=2013.parquet")) == 21
