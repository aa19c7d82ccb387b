"""A market store that version 1 of the schema filled, opened by this program."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from signals_core.market_data import migrations
from signals_core.market_data.schemas import FUNDAMENTAL_VALUES
from signals_core.market_data.store import Coverage, MarketStore
from signals_core.market_data.versions import Saved
from tests.core.stores import BACKENDS, LATER, empty_database, raw_bars, recorded_sql, screen

BARS = 60
FIGURES = ", ".join(f"{name} double precision" for name in FUNDAMENTAL_VALUES)
VERSION_1 = (
    "create table bars (symbol varchar(17), date date, open double precision not null, high double precision not "
    "null, low double precision not null, close double precision not null, volume double precision not null, "
    "adjustment double precision not null, source varchar(64) not null, primary key (symbol, date))",
    "create table rejected_bars (symbol varchar(17), row integer, date varchar(40) not null, "
    "reason varchar(200) not null, primary key (symbol, row))",
    f"create table fundamentals (symbol varchar(17), available_at timestamp, period_end date, "
    f"fiscal_period varchar(8), {FIGURES}, primary key (symbol, available_at, period_end))",
    "create table insider_transactions (symbol varchar(17), available_at timestamp, transaction_date date, "
    "code varchar(2), shares double precision, line integer, price double precision, "
    "primary key (symbol, available_at, transaction_date, code, shares, line))",
    "create table short_interest (symbol varchar(17), available_at timestamp, settlement_date date, "
    "shares_short double precision, avg_daily_volume double precision, shares_float double precision, "
    "primary key (symbol, available_at, settlement_date))",
    "insert into rejected_bars values ('AAA', 3, '2019-12-31', 'volume is negative')",
    "insert into fundamentals (symbol, available_at, period_end, fiscal_period, revenue, eps) values "
    "('AAA', '2020-04-24 20:30:00.000000', '2020-03-31', 'Q1', 100.5, null), "
    "('AAA', '2020-08-01 12:00:00.250000', '2020-03-31', 'Q1', 90.0, 1.25), "
    "('BBB', '2020-04-24 20:30:00.000000', '2020-03-31', null, 7.0, null)",
    "insert into insider_transactions values "
    "('AAA', '2020-04-24 20:30:00.000000', '2020-04-22', 'S', -100, 0, 10.0), "
    "('AAA', '2020-04-24 20:30:00.000000', '2020-04-22', 'S', -100, 1, 10.0), "
    "('AAA', '2020-04-24 20:30:00.000000', '2020-04-22', 'A', 5, 0, null)",
    "insert into short_interest values ('AAA', '2020-04-24 20:30:00.000000', '2020-04-15', 5e6, 1e6, null), "
    "('AAA', '2020-05-11 20:30:00.000000', '2020-04-15', 6e6, 1e6, 9e9)",
)
TABLES_1 = ("bars", "rejected_bars", "fundamentals", "insider_transactions", "short_interest")


def adjustments() -> np.ndarray:
    """Two splits of 2 for 1 and a dividend of one per cent, as version 1 kept them."""
    return np.repeat([0.25 * 0.99, 0.5 * 0.99, 0.99, 1.0], BARS // 4)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of version 1."""
    with empty_database(request.param, tmp_path) as made:
        engine = sa.create_engine(made)
        rows = raw_bars(BARS).assign(adjustment=adjustments(), source="files")
        with engine.begin() as connection:
            for statement in VERSION_1:
                connection.exec_driver_sql(statement)
            for symbol, kept in (("AAA", rows), ("BBB", rows.iloc[:7])):
                values = kept.assign(symbol=symbol, date=kept["date"].dt.strftime("%Y-%m-%d")).to_dict("records")
                names = "symbol, date, open, high, low, close, volume, adjustment, source"
                marks = ", ".join(f":{name}" for name in names.split(", "))
                connection.execute(sa.text(f"insert into bars ({names}) values ({marks})"), values)
        engine.dispose()
        yield made


@pytest.fixture
def store(url: str) -> Iterator[MarketStore]:
    opened = MarketStore(url)
    yield opened
    opened.close()


def tables_of(url: str, names: tuple[str, ...]) -> dict[str, list[str]]:
    """The columns and every row of some tables."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        results = {name: connection.execute(sa.text(f"select * from {name}")) for name in names}
        content = {name: [str(list(result.keys())), *sorted(map(repr, result))] for name, result in results.items()}
    engine.dispose()
    return content


def test_every_bar_of_version_1_is_there_as_traded(store: MarketStore) -> None:
    raw = raw_bars(BARS)
    found = store.load_bars("AAA", adjustment="none")
    for name in ("open", "high", "low", "close", "volume"):
        assert found[name].tolist() == raw[name].tolist()
    first, last = raw["date"].iloc[0].date(), raw["date"].iloc[-1].date()
    assert store.coverage() == {
        "AAA": Coverage(first, last, BARS), "BBB": Coverage(first, raw["date"].iloc[6].date(), 7),
    }  # fmt: skip
    assert store.latest_bars()["date"].dt.date.to_dict() == {"AAA": last, "BBB": raw["date"].iloc[6].date()}


@pytest.mark.parametrize("adjustment", ["backward", "forward"])
def test_adjusted_closes_of_version_1_keep_their_returns(store: MarketStore, adjustment: Any) -> None:
    wanted = (raw_bars(BARS)["close"] * adjustments()).pct_change()[1:]
    found = store.load_bars("AAA", adjustment=adjustment)
    np.testing.assert_allclose(found["close"].pct_change()[1:], wanted, rtol=1e-9)


def test_a_bar_of_version_1_is_known_from_the_close_of_its_session(store: MarketStore) -> None:
    close = datetime(2020, 1, 8, 21, tzinfo=UTC)
    assert store.load_bars("AAA", as_of=close).index[-1] == pd.Timestamp("2020-01-08")
    assert store.load_actions("AAA", as_of=close).empty


def test_every_fact_of_version_1_is_there_at_its_moment(store: MarketStore) -> None:
    figures = store.load_facts("fundamentals", "AAA")
    moments = [pd.Timestamp("2020-04-24 20:30"), pd.Timestamp("2020-08-01 12:00:00.25")]
    assert figures["available_at"].tolist() == moments
    assert figures["revenue"].tolist() == [100.5, 90.0]
    assert figures["eps"].isna().tolist() == [True, False]
    assert figures["fiscal_period"].tolist() == ["Q1", "Q1"]
    assert store.load_facts("fundamentals", "BBB")["fiscal_period"].tolist() == [""]
    lots = store.load_facts("insider_transactions", "AAA")
    assert sorted(zip(lots["code"], lots["shares"], lots["line"], lots["price"].fillna(-1), strict=True)) == [
        ("A", 5.0, 0, -1.0), ("S", -100.0, 0, 10.0), ("S", -100.0, 1, 10.0),
    ]  # fmt: skip
    interest = store.load_facts("short_interest", "AAA")
    assert interest["shares_short"].tolist() == [5e6, 6e6]
    assert interest["settlement_date"].tolist() == [pd.Timestamp("2020-04-15")] * 2


def test_rows_that_version_1_refused_are_still_listed(store: MarketStore) -> None:
    found = store.rejected("bars")
    assert found.to_dict("records") == [
        {"symbol": "AAA", "row": 3, "item": "2019-12-31", "reason": "volume is negative"}
    ]


def test_loading_what_version_1_had_again_changes_nothing(store: MarketStore) -> None:
    given = screen(raw_bars(BARS).assign(adjustment=adjustments()))
    before = store.load_bars("AAA")
    assert store.save_bars("AAA", given, LATER) == Saved()
    pd.testing.assert_frame_equal(store.load_bars("AAA"), before, check_exact=True)


def test_a_store_brought_forward_is_not_touched_again(url: str, store: MarketStore) -> None:
    names = ("bars", "corporate_actions", "fundamentals", "insider_transactions", "short_interest", "schema_version")
    before = tables_of(url, names)
    with recorded_sql() as statements:
        MarketStore(url).close()
    changes = ("create", "alter", "drop", "insert", "delete", "update")
    assert [statement for statement in statements if statement.lower().startswith(changes)] == []
    assert tables_of(url, names) == before
    assert len(before["schema_version"]) == 2


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize(
    ("step", "calls"), [("_take_out_version_1", 1), ("_put_in", 1), ("_put_in", 4), ("_put_in", 6)]
)
def test_a_migration_that_is_interrupted_leaves_version_1_as_it_was(
    url: str, monkeypatch: pytest.MonkeyPatch, step: str, calls: int
) -> None:
    before, really, done = tables_of(url, TABLES_1), getattr(migrations, step), []

    def interrupted(*given: Any) -> Any:
        result = really(*given)
        done.append(step)
        if len(done) == calls:
            raise Interrupted
        return result

    with monkeypatch.context() as patch:
        patch.setattr(migrations, step, interrupted)
        with pytest.raises(Interrupted):
            MarketStore(url)
    assert tables_of(url, TABLES_1) == before
    engine = sa.create_engine(url)
    assert set(sa.inspect(engine).get_table_names()) == set(TABLES_1)
    engine.dispose()
    opened = MarketStore(url)
    assert opened.coverage()["AAA"].sessions == BARS
    opened.close()


def test_two_that_open_a_store_of_version_1_at_once_bring_it_forward_once(url: str) -> None:
    def sessions(_: int) -> int:
        opened = MarketStore(url)
        try:
            return opened.coverage()["AAA"].sessions
        finally:
            opened.close()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(sessions, range(3))) == [BARS] * 3


def test_an_empty_store_of_version_1_becomes_an_empty_one(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for name in TABLES_1:
            connection.execute(sa.text(f"delete from {name}"))
    engine.dispose()
    opened = MarketStore(url)
    assert opened.coverage() == {}
    assert opened.load_facts("fundamentals", "AAA").empty
    opened.close()


@pytest.mark.parametrize("made", [lambda: raw_bars(3).iloc[:0], lambda: raw_bars(3)])
def test_a_migrated_store_takes_new_symbols(store: MarketStore, made: Callable[[], pd.DataFrame]) -> None:
    assert store.save_bars("CCC", screen(made(), "CCC"), LATER).new == len(made())
