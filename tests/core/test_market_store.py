"""One contract for the market store, kept by SQLite and by PostgreSQL."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from signals_core.calendar import sessions_between
from signals_core.errors import ServiceDown
from signals_core.market_data.schemas import ScreenedBars, screen_bars
from signals_core.market_data.store import Coverage, MarketStore
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2020, 1, 1), date(2022, 7, 2))
POSTGRES_VARIABLE = "SIGNALS_TEST_POSTGRES_URL"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a new file, or a schema of its own that is dropped afterwards."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'market.sqlite'}"
        return
    if not os.environ.get(POSTGRES_VARIABLE):
        pytest.skip(f"{POSTGRES_VARIABLE} is not set")
    server = sa.make_url(os.environ[POSTGRES_VARIABLE])
    schema = f"signals_test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text(f"create schema {schema}"))
    yield server.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.text(f"drop schema {schema} cascade"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[MarketStore]:
    opened = MarketStore(url)
    yield opened
    opened.close()


@pytest.fixture
def screened() -> ScreenedBars:
    return screen_bars(make_bars("AAA").iloc[:30].assign(adjustment=0.5), "AAA", SESSIONS)


def filing(available_at: str, period_end: str, revenue: float | None, **values: object) -> dict[str, object]:
    return {
        "symbol": "AAA", "available_at": pd.Timestamp(available_at), "period_end": pd.Timestamp(period_end),
        "fiscal_period": "Q1", "revenue": revenue, **values,
    }  # fmt: skip


def test_bars_come_back_to_the_last_bit_raw_and_adjusted(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, "files")
    raw = store.load_bars("AAA", raw=True)
    pd.testing.assert_frame_equal(raw, screened.good, check_exact=True, check_freq=False)
    adjusted = store.load_bars("AAA")
    assert adjusted["close"].tolist() == (screened.good["close"] * 0.5).tolist()
    assert adjusted["volume"].tolist() == (screened.good["volume"] * 2).tolist()


def test_the_start_is_included_and_the_end_is_not(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, "files")
    found = store.load_bars("AAA", date(2020, 1, 6), date(2020, 1, 9))
    assert list(found.index.strftime("%m-%d")) == ["01-06", "01-07", "01-08"]


def test_an_unknown_symbol_gives_an_empty_frame_of_the_same_shape(store: MarketStore) -> None:
    found = store.load_bars("ZZZ")
    assert list(found.columns) == ["open", "high", "low", "close", "volume", "adjustment"]
    assert (len(found), found.index.dtype, found.index.name) == (0, "datetime64[us]", "date")


def test_saving_counts_what_is_new_or_different(store: MarketStore, screened: ScreenedBars) -> None:
    assert store.save_bars("AAA", screened, "files") == 30
    assert store.save_bars("AAA", screened, "files") == 0
    restated = screened.good.copy()
    restated.iloc[[4, 9], restated.columns.get_loc("close")] = restated["high"].iloc[[4, 9]]
    assert store.save_bars("AAA", ScreenedBars(restated, screened.rejected), "files") == 2
    assert store.load_bars("AAA", raw=True)["close"].tolist() == restated["close"].tolist()


def test_a_shorter_load_deletes_no_bars_and_no_other_symbol(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, "files")
    store.save_bars("BBB", screened, "files")
    store.save_bars("AAA", ScreenedBars(screened.good.iloc[-2:], screened.rejected), "files")
    assert store.coverage() == {s: Coverage(date(2020, 1, 2), date(2020, 2, 13), 30) for s in ("AAA", "BBB")}
    assert list(store.coverage(["BBB", "ZZZ"])) == ["BBB"]


def test_rejected_rows_are_those_of_the_last_load(store: MarketStore) -> None:
    raw = make_bars("AAA").iloc[:5].reset_index(drop=True)
    raw.loc[3, "volume"] = -1
    store.save_bars("AAA", screen_bars(raw, "AAA", SESSIONS), "files")
    rejected = store.rejected_bars("AAA")
    assert rejected["row"].tolist() == [3]
    assert rejected["date"].str[:10].tolist() == ["2020-01-07"]
    assert rejected["reason"].tolist() == ["volume is negative"]
    store.save_bars("AAA", screen_bars(make_bars("AAA").iloc[:5], "AAA", SESSIONS), "files")
    assert store.rejected_bars("AAA").empty


def test_a_load_that_fails_changes_nothing(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, "files")
    broken = screened.good.assign(close=screened.good["close"].astype(object))
    broken.iloc[:5, broken.columns.get_loc("close")] = 1.0
    broken.iloc[20, broken.columns.get_loc("close")] = None
    with pytest.raises(sa.exc.IntegrityError):
        store.save_bars("AAA", ScreenedBars(broken, screened.rejected), "files")
    assert store.load_bars("AAA", raw=True)["close"].tolist() == screened.good["close"].tolist()


def test_a_restatement_is_a_new_row_and_nothing_is_overwritten(store: MarketStore) -> None:
    first = filing("2012-04-24 20:30", "2012-03-31", 100.0)
    second = filing("2012-08-01 12:00", "2012-03-31", 90.0)
    assert store.save_facts("fundamentals", pd.DataFrame([first])) == 1
    assert store.save_facts("fundamentals", pd.DataFrame([first, second])) == 1
    assert store.save_facts("fundamentals", pd.DataFrame([{**first, "revenue": 1.0}])) == 0
    found = store.load_facts("fundamentals", "AAA")
    assert found["revenue"].tolist() == [100.0, 90.0]
    assert found["available_at"].tolist() == [pd.Timestamp("2012-04-24 20:30"), pd.Timestamp("2012-08-01 12:00")]


def test_facts_are_cut_at_the_moment_they_became_available(store: MarketStore) -> None:
    rows = [filing("2012-04-24 20:30", "2012-03-31", 100.0), filing("2012-07-24 20:30", "2012-06-30", 110.0)]
    store.save_facts("fundamentals", pd.DataFrame(rows))
    at = datetime(2012, 7, 24, 20, 30, tzinfo=UTC)
    assert len(store.load_facts("fundamentals", "AAA", at)) == 2
    assert len(store.load_facts("fundamentals", "AAA", at.replace(minute=29, second=59))) == 1
    assert store.load_facts("fundamentals", "BBB", at).empty


def test_facts_keep_offsets_gaps_and_types(store: MarketStore) -> None:
    row = filing("2012-04-24 16:30-04:00", "2012-03-31", None, eps=1.25)
    store.save_facts("fundamentals", pd.DataFrame([row]))
    found = store.load_facts("fundamentals", "AAA")
    assert found["available_at"].tolist() == [pd.Timestamp("2012-04-24 20:30")]
    assert found["period_end"].dtype == found["available_at"].dtype == "datetime64[us]"
    assert found["revenue"].isna().all()
    assert found["revenue"].dtype == "float64"
    assert found["eps"].tolist() == [1.25]
    assert "symbol" not in found


def test_no_facts_are_nothing_to_save_and_an_empty_frame_to_load(store: MarketStore) -> None:
    assert store.save_facts("short_interest", pd.DataFrame()) == 0
    found = store.load_facts("short_interest", "AAA")
    assert found.columns.tolist() == [
        "available_at", "settlement_date", "shares_short", "avg_daily_volume", "shares_float",
    ]  # fmt: skip
    assert found["shares_short"].dtype == "float64"


def test_two_lots_of_one_size_at_different_prices_are_both_kept(store: MarketStore) -> None:
    lots = pd.DataFrame(
        {"symbol": "AAA", "available_at": pd.Timestamp("2012-04-24"), "transaction_date": pd.Timestamp("2012-04-23"),
         "code": "S", "shares": -100.0, "price": [10.0, 10.5]}
    )  # fmt: skip
    assert store.save_facts("insider_transactions", lots) == 2
    assert sorted(store.load_facts("insider_transactions", "AAA")["price"]) == [10.0, 10.5]


def test_writers_at_the_same_time_wait_for_each_other(url: str, store: MarketStore, screened: ScreenedBars) -> None:
    def write(symbol: str) -> int:
        opened = MarketStore(url)  # also creates the tables again, at the same time
        try:
            return sum(opened.save_bars(f"{symbol}{n}", screened, "files") for n in range(4))
        finally:
            opened.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, "ABCD")) == [120] * 4
    assert len(store.coverage()) == 16


def test_the_version_names_the_backend(store: MarketStore) -> None:
    backend, number = store.version().split(maxsplit=1)
    assert backend == store.backend
    assert number[0].isdigit()


def test_what_one_process_stored_the_next_one_reads(tmp_path: Path, screened: ScreenedBars) -> None:
    first = MarketStore.embedded(tmp_path / "data" / "market.sqlite")
    first.save_bars("AAA", screened, "files")
    first.close()
    second = MarketStore.embedded(tmp_path / "data" / "market.sqlite")
    assert second.coverage()["AAA"].sessions == 30
    second.close()


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(ServiceDown, match=r"(?s)127\.0\.0\.1:1/.*stores\.market_url") as down:
        MarketStore("postgresql+psycopg2://me:secret@127.0.0.1:1/market")
    assert "secret" not in str(down.value)
