"""One contract for the market store, kept by SQLite, PostgreSQL and TimescaleDB."""

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from signals_core.errors import DataError, ServiceDown
from signals_core.market_data import migrations, versions
from signals_core.market_data import store as store_module
from signals_core.market_data.database import make_hypertables, tier_of
from signals_core.market_data.schemas import BAR_COLUMNS
from signals_core.market_data.screening import ScreenedBars
from signals_core.market_data.store import Coverage, MarketStore
from signals_core.market_data.tables import VERSIONED
from signals_core.market_data.versions import Saved
from tests.core.stores import BACKENDS, LAST, LATER, LOADED, empty_database, raw_bars, recorded_sql, screen
from tests.project.bars import make_bars

ROOT = Path(__file__).parents[2]
MOMENT = timedelta(microseconds=1)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with empty_database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def store(url: str) -> Iterator[MarketStore]:
    opened = MarketStore(url)
    yield opened
    opened.close()


@pytest.fixture
def screened() -> ScreenedBars:
    return screen(raw_bars())


def many(symbols: int, sessions: int, scale: float = 1.0) -> pd.DataFrame:
    """The first bars of AAA under several names; their prices times a number."""
    bars = raw_bars(sessions)
    bars[list(BAR_COLUMNS[:4])] *= scale
    return pd.concat([bars.assign(symbol=f"S{number:03d}") for number in range(symbols)], ignore_index=True)


def bars_at(closes: dict[str, float], **events: dict[str, float]) -> ScreenedBars:
    """Bars with open = high = low = close and 1,000 shares a day, and what a source tells on some of the days."""
    return screen(raw_at(closes, **events), "AAPL")


def raw_at(closes: dict[str, float], **events: dict[str, float]) -> pd.DataFrame:
    raw = pd.DataFrame({"date": list(closes), "volume": 1e3})
    for name in BAR_COLUMNS[:4]:
        raw[name] = list(closes.values())
    for name, values in events.items():
        raw[name] = raw["date"].map(values)
    return raw


AAPL = {
    "2005-02-25": 88.99, "2005-02-28": 44.86, "2014-06-06": 645.57, "2014-06-09": 93.70,
    "2020-08-06": 455.61, "2020-08-07": 444.45, "2020-08-28": 499.23, "2020-08-31": 129.04,
}  # fmt: skip
SPLITS = {"2005-02-28": 2.0, "2014-06-09": 7.0, "2020-08-31": 4.0}
DIVIDENDS = {"2020-08-07": 0.82}


# -- bars ------------------------------------------------------------------------------------------------------


def test_bars_come_back_to_the_last_bit(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, LOADED)
    found = store.load_bars("AAA", adjustment="none")
    pd.testing.assert_frame_equal(found[list(BAR_COLUMNS)], screened.good, check_exact=True, check_freq=False)


def test_every_double_survives_the_way_through_the_database(store: MarketStore) -> None:
    bits = np.random.default_rng(7).integers(1, 0x7FEF_FFFF_FFFF_FFFF, (200, 5), dtype=np.int64).view("float64")
    bits[0] = [5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2, 2.0**53 + 2]
    bars = pd.DataFrame(bits, columns=list(BAR_COLUMNS)).assign(date=raw_bars(200)["date"], symbol="AAA")
    store.save_many_bars(bars, LOADED)
    found = store.load_bars("AAA", adjustment="none")[list(BAR_COLUMNS)].to_numpy()
    assert np.array_equal(found.view("int64"), bits.view("int64"))


def test_bars_saved_in_bulk_are_those_saved_one_symbol_at_a_time(store: MarketStore, screened: ScreenedBars) -> None:
    assert store.save_many_bars(many(3, 30), LOADED) == Saved(new=90)
    store.save_bars("AAA", screened, LOADED)
    pd.testing.assert_frame_equal(store.load_bars("S002"), store.load_bars("AAA"), check_exact=True)
    moment = datetime(2020, 1, 31, 21, tzinfo=UTC)
    assert store.load_bars("S002", as_of=moment).index[-1] == store.load_bars("AAA", as_of=moment).index[-1]
    assert store.save_many_bars(many(3, 30), LATER) == Saved()


def test_the_start_is_included_and_the_end_is_not(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, LOADED)
    found = store.load_bars("AAA", date(2020, 1, 6), date(2020, 1, 9))
    assert list(found.index.strftime("%m-%d")) == ["01-06", "01-07", "01-08"]


@pytest.mark.parametrize("adjustment", ["backward", "forward", "none"])
def test_an_unknown_symbol_gives_an_empty_frame_of_the_same_shape(store: MarketStore, adjustment: Any) -> None:
    found = store.load_bars("ZZZ", adjustment=adjustment)
    assert list(found.columns) == [*BAR_COLUMNS, "adjustment", "split_adjustment"]
    assert (len(found), found.index.dtype, found.index.name) == (0, "datetime64[us]", "date")
    assert set(found.dtypes) == {np.dtype("float64")}


def test_loading_the_same_again_changes_nothing(store: MarketStore) -> None:
    events = {"dividend": raw_bars().index.map({7: 0.5}), "split": raw_bars().index.map({12: 2.0})}
    given = screen(raw_bars().assign(**events))
    assert store.save_bars("AAA", given, LOADED) == Saved(new=32)
    before = store.load_bars("AAA")
    assert store.save_bars("AAA", given, LATER) == Saved()
    assert store.save_bars("AAA", given, LAST).changed == 0
    pd.testing.assert_frame_equal(store.load_bars("AAA"), before, check_exact=True)
    assert store.restated("bars") == store.restated("corporate_actions") == {}


def test_a_bar_is_known_from_the_close_of_its_session(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, LOADED)
    close = datetime(2020, 1, 8, 21, tzinfo=UTC)  # 16:00 in New York
    assert store.load_bars("AAA", as_of=close).index[-1] == pd.Timestamp("2020-01-08")
    assert store.load_bars("AAA", as_of=close - MOMENT).index[-1] == pd.Timestamp("2020-01-07")


def test_a_corrected_bar_is_a_new_version_from_the_moment_it_came(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, LOADED)
    corrected = screened.good.copy()
    corrected.iloc[[4, 9], 3] = corrected["low"].iloc[[4, 9]]
    assert store.save_bars("AAA", replace(screened, good=corrected), LATER) == Saved(restated=2)

    def closes(as_of: datetime | None) -> list[float]:
        return store.load_bars("AAA", as_of=as_of, adjustment="none")["close"].tolist()

    assert closes(None) == closes(LATER) == corrected["close"].tolist()
    assert closes(LATER - MOMENT) == closes(LOADED) == screened.good["close"].tolist()
    assert store.restated("bars") == {"AAA": 2}


def test_a_bar_corrected_twice_and_back_has_four_versions(store: MarketStore, screened: ScreenedBars) -> None:
    moments = [LOADED + timedelta(days=day) for day in range(4)]
    wanted = []
    for moment, close in zip(moments, (1.0, 2.0, 3.0, 1.0), strict=True):
        good = screened.good.assign(open=close, high=close, low=close, close=close).iloc[:1]
        store.save_bars("AAA", replace(screened, good=good), moment)
        wanted.append(close)
    assert [store.load_bars("AAA", as_of=moment)["close"].item() for moment in moments] == wanted
    assert store.restated("bars") == {"AAA": 3}


def test_a_withdrawn_bar_is_gone_from_then_on_and_still_there_before(
    store: MarketStore, screened: ScreenedBars
) -> None:
    store.save_bars("AAA", screened, LOADED)
    day = screened.good.index[11]
    without = replace(screened, good=screened.good.drop(day))
    assert store.save_bars("AAA", without, LATER) == Saved(withdrawn=1)
    assert day not in store.load_bars("AAA").index
    assert day not in store.load_bars("AAA", as_of=LATER).index
    assert day in store.load_bars("AAA", as_of=LATER - MOMENT).index
    assert store.coverage()["AAA"].sessions == 29
    assert store.save_bars("AAA", without, LAST) == Saved()


def test_a_withdrawn_bar_that_is_given_again_is_known_again(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, LOADED)
    store.save_bars("AAA", replace(screened, good=screened.good.drop(screened.good.index[11])), LATER)
    assert store.save_bars("AAA", screened, LAST) == Saved(restated=1)
    assert [len(store.load_bars("AAA", as_of=moment)) for moment in (LOADED, LATER, LAST)] == [30, 29, 30]


def test_a_shorter_load_withdraws_no_bars_and_no_other_symbol(store: MarketStore, screened: ScreenedBars) -> None:
    store.save_bars("AAA", screened, LOADED)
    store.save_bars("BBB", screened, LOADED)
    assert store.save_bars("AAA", replace(screened, good=screened.good.iloc[-2:]), LATER) == Saved()
    assert store.save_bars("AAA", replace(screened, good=screened.good.iloc[:2]), LATER) == Saved()
    assert store.save_bars("AAA", replace(screened, good=screened.good.iloc[:0]), LATER) == Saved()
    assert store.coverage() == {s: Coverage(date(2020, 1, 2), date(2020, 2, 13), 30) for s in ("AAA", "BBB")}
    assert list(store.coverage(["BBB", "ZZZ"])) == ["BBB"]


@pytest.mark.parametrize(("sessions", "most"), [(30, 5), (500, 10)])
def test_a_source_that_lost_much_of_its_history_is_refused(store: MarketStore, sessions: int, most: int) -> None:
    raw = raw_bars(sessions + 1)
    store.save_bars("AAA", screen(raw.iloc[:-1]), LOADED)
    lost = raw.drop(index=range(10, 11 + most)).assign(dividend=np.nan)
    lost.loc[5, "close"], lost.loc[7, "dividend"] = lost.loc[5, "low"], 0.2
    with pytest.raises(DataError, match=rf"AAA.* lacks {most + 1} of {sessions} bars .*nothing is stored"):
        store.save_bars("AAA", screen(lost), LATER)
    assert store.coverage()["AAA"].sessions == sessions
    assert store.restated("bars") == {}
    assert store.load_actions("AAA").empty
    kept = raw.drop(index=range(10, 10 + most))
    assert store.save_bars("AAA", screen(kept), LATER) == Saved(new=1, withdrawn=most)


@pytest.mark.parametrize("written", ["datetime", "%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d 16:00"])
def test_a_refused_row_leaves_the_stored_bar_as_it_is(store: MarketStore, written: str) -> None:
    raw = raw_bars()
    store.save_bars("AAA", screen(raw), LOADED)
    raw.loc[11, "volume"] = -1
    if written != "datetime":
        raw["date"] = raw["date"].dt.strftime(written)
    refused = screen(raw)
    assert len(refused.rejected) == 1
    assert store.save_bars("AAA", refused, LATER) == Saved()
    assert len(store.load_bars("AAA")) == 30


# -- corporate actions and adjustment --------------------------------------------------------------------------


def test_the_prices_of_apple_are_adjusted_backward_as_computed_by_hand(store: MarketStore) -> None:
    store.save_bars("AAPL", bars_at(AAPL, split=SPLITS, dividend=DIVIDENDS), LOADED)
    found = store.load_bars("AAPL")
    paid = 0.9982002150962446  # 1 - 0.82 / 455.61
    by_hand = {
        "2005-02-25": 88.99 / 56 * paid, "2005-02-28": 44.86 / 28 * paid, "2014-06-06": 645.57 / 28 * paid,
        "2014-06-09": 93.70 / 4 * paid, "2020-08-06": 455.61 / 4 * paid, "2020-08-07": 111.1125,
        "2020-08-28": 124.8075, "2020-08-31": 129.04,
    }  # fmt: skip
    assert found["close"].tolist() == pytest.approx(list(by_hand.values()), rel=1e-14)
    assert found["open"].tolist() == found["close"].tolist()
    assert found["volume"].tolist() == pytest.approx([56e3, 28e3, 28e3, 4e3, 4e3, 4e3, 4e3, 1e3], rel=1e-14)
    assert found["split_adjustment"].tolist() == pytest.approx(
        [1 / 56, 1 / 28, 1 / 28, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1], rel=1e-14
    )
    assert (found["close"] / found["adjustment"]).tolist() == pytest.approx(list(AAPL.values()), rel=1e-14)


def test_the_prices_of_apple_are_adjusted_forward_as_computed_by_hand(store: MarketStore) -> None:
    store.save_bars("AAPL", bars_at(AAPL, split=SPLITS, dividend=DIVIDENDS), LOADED)
    found = store.load_bars("AAPL", adjustment="forward")
    held = 1.0018030299698762  # 455.61 / 454.79
    assert found["close"].tolist() == pytest.approx(
        [88.99, 89.72, 1291.14, 1311.8, 6378.54, 444.45 * 14 * held, 499.23 * 14 * held, 129.04 * 56 * held], rel=1e-14
    )
    assert found["volume"].tolist() == pytest.approx(
        [1e3, 1e3 / 2, 1e3 / 2, 1e3 / 14, 1e3 / 14, 1e3 / 14, 1e3 / 14, 1e3 / 56], rel=1e-14
    )
    none = store.load_bars("AAPL", adjustment="none")
    assert none["close"].tolist() == list(AAPL.values())
    assert (none[["adjustment", "split_adjustment"]] == 1).all(axis=None)


def test_a_return_is_the_same_whichever_way_prices_are_adjusted(store: MarketStore) -> None:
    raw = raw_bars(250)
    raw["split"] = raw.index.map({40: 2.0, 90: 0.1, 200: 1.5})
    raw["dividend"] = raw.index.map({30: 0.4, 90: 3.0, 150: 0.41})
    store.save_bars("AAA", screen(raw), LOADED)
    backward, forward = store.load_bars("AAA"), store.load_bars("AAA", adjustment="forward")
    np.testing.assert_allclose(backward["close"].pct_change()[1:], forward["close"].pct_change()[1:], rtol=1e-10)
    assert backward["close"].iloc[-1] == raw["close"].iloc[-1]
    assert forward["close"].iloc[0] == raw["close"].iloc[0]
    # Total return over the split and dividend of one day: ten old shares became one, and each paid 3.
    at = 90
    wanted = (raw["close"][at]) / (raw["close"][at - 1] / 0.1 - 3.0)
    assert backward["close"].iloc[at] / backward["close"].iloc[at - 1] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("event", [{"split": 4.0}, {"dividend": 1.7}, {"split": 3.0, "dividend": 0.6}])
def test_a_later_action_leaves_earlier_forward_adjusted_rows_as_they_were(
    store: MarketStore, event: dict[str, float]
) -> None:
    raw = raw_bars(60).assign(split=np.nan, dividend=np.nan)
    raw.loc[10, "split"], raw.loc[20, "dividend"] = 2.0, 0.5
    store.save_bars("AAA", screen(raw.iloc[:40]), LOADED)
    before = store.load_bars("AAA", adjustment="forward")
    raw.loc[40, list(event)] = list(event.values())
    store.save_bars("AAA", screen(raw.iloc[30:]), LATER)
    after = store.load_bars("AAA", adjustment="forward")
    assert len(after) == 60
    pd.testing.assert_frame_equal(after.iloc[:40], before, check_exact=True, check_freq=False)
    assert not np.array_equal(store.load_bars("AAA")["close"].iloc[:40], before["close"])


def test_a_split_counts_from_when_it_was_known(store: MarketStore) -> None:
    store.save_bars("AAPL", bars_at(AAPL, split=SPLITS), LOADED)
    friday = store.load_bars("AAPL", as_of=datetime(2020, 8, 30, tzinfo=UTC))
    assert friday["close"].iloc[-1] == 499.23
    assert friday["close"].iloc[0] == pytest.approx(88.99 / 14, rel=1e-14)
    monday = store.load_bars("AAPL", as_of=datetime(2020, 8, 31, 20, tzinfo=UTC))
    assert monday["close"].iloc[-2:].tolist() == pytest.approx([499.23 / 4, 129.04], rel=1e-14)


def test_a_split_on_a_day_whose_bar_is_refused_counts_from_the_next_bar(store: MarketStore) -> None:
    raw = raw_at(AAPL, split=SPLITS)
    raw.loc[1, "close"] = np.nan
    store.save_bars("AAPL", screen(raw, "AAPL"), LOADED)
    found = store.load_bars("AAPL")["split_adjustment"]
    assert found.iloc[:2].tolist() == pytest.approx([1 / 56, 1 / 28], rel=1e-14)


def test_the_returns_of_an_adjusted_close_are_those_of_its_source(store: MarketStore) -> None:
    raw = raw_bars(50)
    raw["adjustment"] = np.repeat([0.11, 0.23, 0.5, 1.0, 1.0], 10)
    store.save_bars("AAA", screen(raw), LOADED)
    assert store.load_actions("AAA")["kind"].tolist() == ["factor"] * 3
    wanted = (raw["close"] * raw["adjustment"]).pct_change()[1:]
    for adjustment in ("backward", "forward"):
        found = store.load_bars("AAA", adjustment=adjustment)  # type: ignore[arg-type]
        np.testing.assert_allclose(found["close"].pct_change()[1:], wanted, rtol=1e-9)
        assert (found["split_adjustment"] == 1).all()


def test_a_corrected_dividend_is_a_new_version_from_the_moment_it_came(store: MarketStore) -> None:
    store.save_bars("AAPL", bars_at(AAPL, dividend={"2020-08-07": 0.28}), LOADED)
    assert store.save_bars("AAPL", bars_at(AAPL, dividend=DIVIDENDS), LATER) == Saved(restated=1)
    assert store.load_actions("AAPL")["value"].tolist() == [0.82]
    assert store.load_actions("AAPL", LATER - MOMENT)["value"].tolist() == [0.28]
    assert store.load_bars("AAPL", as_of=LATER)["close"].iloc[4] == pytest.approx(454.79, rel=1e-14)
    assert store.load_bars("AAPL", as_of=LATER - MOMENT)["close"].iloc[4] == pytest.approx(455.33, rel=1e-14)


def test_a_withdrawn_split_is_gone_from_then_on_and_still_there_before(store: MarketStore) -> None:
    wrong = {**SPLITS, "2020-08-07": 3.0}
    store.save_bars("AAPL", bars_at(AAPL, split=wrong), LOADED)
    assert store.save_bars("AAPL", bars_at(AAPL, split=SPLITS), LATER) == Saved(withdrawn=1)
    assert store.load_actions("AAPL")["value"].tolist() == [2.0, 7.0, 4.0]
    assert store.load_actions("AAPL", LATER - MOMENT)["value"].tolist() == [2.0, 7.0, 3.0, 4.0]
    assert store.save_bars("AAPL", bars_at(AAPL, split=SPLITS), LAST) == Saved()
    assert store.save_bars("AAPL", bars_at(AAPL, split=wrong), LAST) == Saved(restated=1)
    assert store.load_actions("AAPL")["value"].tolist() == [2.0, 7.0, 3.0, 4.0]


def test_actions_outside_a_load_and_of_its_first_day_are_not_withdrawn(store: MarketStore) -> None:
    store.save_bars("AAPL", bars_at(AAPL, split=SPLITS, dividend=DIVIDENDS), LOADED)
    part = {day: AAPL[day] for day in ("2014-06-09", "2020-08-06")}
    assert store.save_bars("AAPL", bars_at(part), LATER) == Saved()
    assert len(store.load_actions("AAPL")) == 4


# -- facts -----------------------------------------------------------------------------------------------------


def filing(
    available_at: str, period_end: str, revenue: float | None, document: str | None = None, **values: Any
) -> dict[str, Any]:
    return {
        "available_at": pd.Timestamp(available_at), "period_end": pd.Timestamp(period_end), "fiscal_period": "Q1",
        "document": document or available_at, "revenue": revenue, **values,
    }  # fmt: skip


def save(store: MarketStore, dataset: str, *rows: dict[str, Any], now: datetime = LOADED) -> Saved:
    return store.save_facts(dataset, "AAA", pd.DataFrame(list(rows)), now)


def test_a_restatement_is_a_new_row_and_nothing_is_overwritten(store: MarketStore) -> None:
    first = filing("2012-04-24 20:30", "2012-03-31", 100.0)
    second = filing("2012-08-01 12:00", "2012-03-31", 90.0)
    assert save(store, "fundamentals", first) == Saved(new=1)
    assert save(store, "fundamentals", first, second, now=LATER) == Saved(new=1)
    found = store.load_facts("fundamentals", "AAA")
    assert found["revenue"].tolist() == [100.0, 90.0]
    assert found["available_at"].tolist() == [pd.Timestamp("2012-04-24 20:30"), pd.Timestamp("2012-08-01 12:00")]


def test_a_document_whose_figure_changed_afterwards_is_a_version_from_the_load_that_saw_it(store: MarketStore) -> None:
    row = filing("2012-04-24 20:30", "2012-03-31", 100.0)
    save(store, "fundamentals", row)
    assert save(store, "fundamentals", {**row, "revenue": 1.0}, now=LATER) == Saved(restated=1)
    assert store.load_facts("fundamentals", "AAA", LATER - MOMENT)["revenue"].tolist() == [100.0]
    found = store.load_facts("fundamentals", "AAA")
    assert found["revenue"].tolist() == [100.0, 1.0]
    assert found["available_at"].iloc[1] == pd.Timestamp(LATER).tz_localize(None)
    assert store.restated("fundamentals") == {"AAA": 1}


def test_facts_are_cut_at_the_moment_they_became_available(store: MarketStore) -> None:
    save(
        store, "fundamentals", filing("2012-04-24 20:30", "2012-03-31", 100.0),
        filing("2012-07-24 20:30", "2012-06-30", 110.0),
    )  # fmt: skip
    at = datetime(2012, 7, 24, 20, 30, tzinfo=UTC)
    assert len(store.load_facts("fundamentals", "AAA", at)) == 2
    assert len(store.load_facts("fundamentals", "AAA", at - timedelta(seconds=1))) == 1
    assert len(store.load_facts("fundamentals", "AAA", at - MOMENT)) == 1
    in_new_york = datetime.fromisoformat("2012-07-24T16:30:00-04:00")
    assert len(store.load_facts("fundamentals", "AAA", in_new_york)) == 2
    assert store.load_facts("fundamentals", "BBB", at).empty


def test_facts_of_one_moment_come_in_the_same_order_however_they_were_stored(store: MarketStore) -> None:
    rows = [filing("2012-04-24 20:30", f"201{year}-03-31", float(year), document="a") for year in range(3)]
    save(store, "fundamentals", *reversed(rows))
    store.save_facts("fundamentals", "BBB", pd.DataFrame(rows), LOADED)
    assert store.load_facts("fundamentals", "AAA")["revenue"].tolist() == [0.0, 1.0, 2.0]
    assert store.load_facts("fundamentals", "BBB")["revenue"].tolist() == [0.0, 1.0, 2.0]


def test_facts_keep_gaps_texts_and_types(store: MarketStore) -> None:
    texts = 'a "quoted", comma\nand a line, é, \\N, NULL'
    save(store, "fundamentals", filing("2012-04-24 20:30", "2012-03-31", None, document=texts, eps=1.25))
    found = store.load_facts("fundamentals", "AAA")
    assert found["period_end"].dtype == found["available_at"].dtype == "datetime64[us]"
    assert found["revenue"].isna().all()
    assert found["revenue"].dtype == "float64"
    assert found["eps"].tolist() == [1.25]
    assert found["document"].tolist() == [texts]
    assert "symbol" not in found


def test_an_empty_text_is_not_a_missing_one(store: MarketStore) -> None:
    row = {**filing("2012-04-24 20:30", "2012-03-31", 1.0), "fiscal_period": ""}
    save(store, "fundamentals", row)
    assert store.load_facts("fundamentals", "AAA")["fiscal_period"].tolist() == [""]
    assert save(store, "fundamentals", row, now=LATER) == Saved()


def test_no_facts_are_nothing_to_save_and_an_empty_frame_to_load(store: MarketStore) -> None:
    assert store.save_facts("short_interest", "AAA", pd.DataFrame(), LOADED) == Saved()
    found = store.load_facts("short_interest", "AAA")
    assert found.columns.tolist() == [
        "settlement_date", "document", "available_at", "shares_short", "avg_daily_volume", "shares_float",
    ]  # fmt: skip
    assert found["shares_short"].dtype == "float64"
    assert found["settlement_date"].dtype == "datetime64[us]"


def test_equal_lots_of_one_filing_are_all_kept(store: MarketStore) -> None:
    lot = {
        "available_at": pd.Timestamp("2012-04-24"), "transaction_date": pd.Timestamp("2012-04-23"), "document": "4",
        "insider": "COOK", "code": "S", "shares": -100.0, "price": 10.0,
    }  # fmt: skip
    lots = [{**lot, "line": 0}, {**lot, "line": 1}, {**lot, "line": 2, "price": 10.5}]
    assert save(store, "insider_transactions", *lots) == Saved(new=3)
    assert save(store, "insider_transactions", *lots, now=LATER) == Saved()
    assert store.load_facts("insider_transactions", "AAA")["price"].tolist() == [10.0, 10.0, 10.5]


def interest(available_at: str, shares: float, document: str = "A") -> dict[str, Any]:
    return {
        "settlement_date": pd.Timestamp("2012-04-13"), "document": document, "shares_short": shares,
        "available_at": pd.Timestamp(available_at),
    }  # fmt: skip


def test_short_interest_revised_in_the_same_document_is_a_version_from_the_load_that_saw_it(
    store: MarketStore,
) -> None:
    save(store, "short_interest", interest("2012-04-24 20:30", 5e6))
    assert save(store, "short_interest", interest("2012-04-24 20:30", 6e6), now=LATER) == Saved(restated=1)
    found = store.load_facts("short_interest", "AAA")
    assert found["shares_short"].tolist() == [5e6, 6e6]
    assert found["available_at"].tolist() == [
        pd.Timestamp("2012-04-24 20:30"), pd.Timestamp(LATER).tz_localize(None),
    ]  # fmt: skip
    assert save(store, "short_interest", interest("2012-04-24 20:30", 6e6), now=LAST) == Saved()


def test_a_source_that_tells_every_version_of_a_fact_can_be_loaded_again(store: MarketStore) -> None:
    versions = [interest(f"2012-{month:02d}-24 20:30", month * 1e6) for month in (4, 5, 6)]
    assert save(store, "short_interest", *versions) == Saved(new=3)
    assert save(store, "short_interest", *versions, now=LATER) == Saved()
    assert save(store, "short_interest", *versions, now=LAST) == Saved()
    assert store.load_facts("short_interest", "AAA")["shares_short"].tolist() == [4e6, 5e6, 6e6]


def test_versions_told_later_are_stored_at_the_moments_the_source_gives(store: MarketStore) -> None:
    versions = [interest(f"2012-{month:02d}-24 20:30", month * 1e6) for month in (4, 5, 6)]
    save(store, "short_interest", versions[0])
    assert save(store, "short_interest", *versions, now=LATER).changed == 2
    assert save(store, "short_interest", *versions, now=LAST) == Saved()
    found = store.load_facts("short_interest", "AAA")
    assert found["shares_short"].tolist() == [4e6, 5e6, 6e6]
    assert found["available_at"].tolist() == [version["available_at"] for version in versions]


def test_a_fact_corrected_and_set_back_is_what_it_was_at_first(store: MarketStore) -> None:
    moments, figures = (LOADED, LATER, LAST), (5e6, 6e6, 5e6)
    for moment, shares in zip(moments, figures, strict=True):
        save(store, "short_interest", interest("2012-04-24 20:30", shares), now=moment)
    found = [store.load_facts("short_interest", "AAA", moment)["shares_short"].iloc[-1] for moment in moments]
    assert found == list(figures)


# -- universe --------------------------------------------------------------------------------------------------


def member(symbol: str, start: str, end: str | None) -> dict[str, Any]:
    return {
        "universe": "sp500", "symbol": symbol,
        "valid_from": pd.Timestamp(start), "valid_to": pd.Timestamp(end or "NaT"),
        "available_at": pd.Timestamp(start) + pd.Timedelta(hours=21),
    }  # fmt: skip


def test_a_member_is_one_from_its_first_day_until_the_day_it_left(store: MarketStore) -> None:
    rows = [
        member("AAA", "2010-01-04", "2012-03-01"),
        member("AAA", "2015-01-05", None),
        member("NA", "2011-01-03", None),
    ]
    assert store.save("universe_membership", pd.DataFrame(rows), LOADED) == Saved(new=3)
    assert store.save("universe_membership", pd.DataFrame(rows), LATER) == Saved()
    days = ["2010-01-03", "2010-01-04", "2012-02-29", "2012-03-01", "2015-01-05", "2030-01-01"]
    found = [sorted(store.members("sp500", date.fromisoformat(day))) for day in days]
    assert found == [[], ["AAA"], ["AAA", "NA"], ["NA"], ["AAA", "NA"], ["AAA", "NA"]]
    assert store.members("other", date(2016, 1, 4)) == frozenset()
    intervals = store.memberships("sp500")
    assert intervals["symbol"].tolist() == ["AAA", "AAA", "NA"]
    assert intervals["valid_to"].isna().tolist() == [False, True, True]


def test_who_left_is_a_member_still_as_of_before_it_was_known(store: MarketStore) -> None:
    store.save("universe_membership", pd.DataFrame([member("AAA", "2010-01-04", None)]), LOADED)
    left = pd.DataFrame([member("AAA", "2010-01-04", "2023-02-01")])
    assert store.save("universe_membership", left, LATER) == Saved(restated=1)
    assert store.members("sp500", date(2023, 2, 1)) == frozenset()
    assert store.members("sp500", date(2023, 1, 31)) == {"AAA"}
    assert store.members("sp500", date(2023, 2, 1), as_of=LATER - MOMENT) == {"AAA"}
    assert store.members("sp500", date(2023, 2, 1), as_of=datetime(2010, 1, 4, tzinfo=UTC)) == frozenset()


# -- rejected rows ---------------------------------------------------------------------------------------------


def test_rejected_rows_are_those_of_the_last_load_of_their_time(store: MarketStore) -> None:
    raw = raw_bars(40)
    broken = raw.copy()
    broken.loc[[3, 20], "volume"] = -1
    store.save_bars("AAA", screen(broken), LOADED)
    store.save_bars("BBB", screen(broken), LOADED)
    rejected = store.rejected("bars", "AAA")
    assert rejected["row"].tolist() == [3, 20]
    assert rejected["item"].tolist() == ["2020-01-07", "2020-01-31"]
    assert rejected["reason"].tolist() == ["volume is negative"] * 2
    store.save_bars("AAA", screen(raw.iloc[15:]), LATER)  # what is new, and some days before
    assert store.rejected("bars", "AAA")["item"].tolist() == ["2020-01-07"]
    store.save_bars("AAA", screen(raw), LAST)
    assert store.rejected("bars", "AAA").empty
    assert store.rejected("bars")["symbol"].tolist() == ["BBB", "BBB"]
    assert store.rejected("fundamentals").empty


def test_a_load_of_early_bars_keeps_the_record_of_later_rejections(store: MarketStore) -> None:
    broken = raw_bars(40)
    broken.loc[30, "volume"] = -1
    store.save_bars("AAA", screen(broken), LOADED)
    store.save_bars("AAA", screen(raw_bars(10)), LATER)
    assert store.rejected("bars", "AAA")["row"].tolist() == [30]


def test_a_load_without_any_row_keeps_the_record_of_rejections(store: MarketStore) -> None:
    broken = raw_bars(40)
    broken.loc[30, "volume"] = -1
    store.save_bars("AAA", screen(broken), LOADED)
    store.save_bars("AAA", screen(raw_bars(0)), LATER)
    assert store.rejected("bars", "AAA")["row"].tolist() == [30]


def test_a_date_that_cannot_be_read_does_not_stand_in_the_way_of_the_next_load(store: MarketStore) -> None:
    broken, unreadable = raw_bars(10), ["03/04/2020", "", "Ä" * 60, "zzz", "2020-13-45", "20XX-01-02", "'; --"]
    broken["date"] = broken["date"].dt.strftime("%Y-%m-%d")
    broken.loc[2:8, "date"] = unreadable
    for moment in (LOADED, LATER):
        store.save_bars("AAA", screen(broken), moment)
        assert store.rejected("bars", "AAA")["row"].tolist() == list(range(2, 9))


# -- the last bars, coverage -----------------------------------------------------------------------------------


def assert_latest_is_the_last_loaded(store: MarketStore) -> None:
    latest, coverage = store.latest_bars(), store.coverage()
    assert list(latest.index) == sorted(coverage)
    for symbol, row in latest.iterrows():
        bars = store.load_bars(str(symbol), adjustment="none")
        assert row["date"] == bars.index[-1]
        assert row[list(BAR_COLUMNS)].tolist() == bars[list(BAR_COLUMNS)].iloc[-1].tolist()
        assert coverage[str(symbol)] == Coverage(bars.index[0].date(), bars.index[-1].date(), len(bars))


def test_the_latest_bars_are_the_last_that_each_symbol_has(store: MarketStore) -> None:
    for sessions, symbol in ((30, "AAA"), (12, "BBB"), (1, "CCC")):
        store.save_bars(symbol, screen(raw_bars(sessions)), LOADED)
    corrected = screen(raw_bars(12))
    corrected.good.iloc[-1, 4] = 77.0
    store.save_bars("BBB", corrected, LATER)
    assert_latest_is_the_last_loaded(store)
    assert store.latest_bars().loc["BBB", "volume"] == 77.0
    assert store.latest_bars(["CCC", "ZZZ"])["date"].tolist() == [pd.Timestamp("2020-01-02")]
    assert store.latest_bars([]).empty


def test_where_the_last_bar_is_withdrawn_the_one_before_is_the_latest(store: MarketStore) -> None:
    for symbol in ("AAA", "BBB"):
        store.save_bars(symbol, screen(raw_bars()), LOADED)
    last = raw_bars().iloc[-2:].assign(symbol="AAA", available_at=pd.Timestamp("2020-03-02"))
    store.save("bars", last.assign(**dict.fromkeys(BAR_COLUMNS, np.nan)), LATER)
    assert store.latest_bars().loc["AAA", "date"] == raw_bars()["date"].iloc[-3]
    assert_latest_is_the_last_loaded(store)


def test_a_symbol_whose_every_bar_is_withdrawn_has_no_latest_bar(store: MarketStore) -> None:
    store.save_bars("AAA", screen(raw_bars(3)), LOADED)
    gone = raw_bars(3).assign(symbol="AAA", available_at=pd.Timestamp("2020-03-02"))
    store.save("bars", gone.assign(**dict.fromkeys(BAR_COLUMNS, np.nan)), LATER)
    assert store.latest_bars().empty
    assert store.coverage() == {}
    assert store.load_bars("AAA").empty


def test_bars_saved_as_a_plain_dataset_have_a_latest_one_too(store: MarketStore) -> None:
    bars = raw_bars(5)
    store.save("bars", bars.assign(symbol="AAA", available_at=bars["date"] + pd.Timedelta(hours=21)), LOADED)
    assert_latest_is_the_last_loaded(store)
    assert list(store.latest_bars().index) == ["AAA"]


# -- all or nothing --------------------------------------------------------------------------------------------


def content(store: MarketStore) -> dict[str, list[Any]]:
    """Every row of every table."""
    with store.database.read() as connection:
        names = [*VERSIONED, "symbols", "rejected_rows"]
        return {name: sorted(map(repr, connection.execute(sa.text(f"select * from {name}")))) for name in names}


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("step", ["_insert_restated", "_insert_unknown", "_withdraw_bars", "_replace_rejected"])
def test_a_load_that_is_interrupted_leaves_nothing(
    store: MarketStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    raw = raw_bars(40).assign(dividend=np.nan)
    raw.loc[6, "dividend"], raw.loc[8, "volume"] = 0.3, -1
    store.save_bars("AAA", screen(raw.iloc[:30]), LOADED)
    before = content(store)
    changed = raw.assign(close=raw["low"], dividend=raw["dividend"] * 2)
    module = versions if hasattr(versions, step) else store_module
    really: Callable[..., Any] = getattr(module, step)

    def interrupted(*given: Any) -> Any:
        result = really(*given)
        if step == "_insert_restated":
            given[0].execute(result)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(module, step, interrupted)
        with pytest.raises(Interrupted):
            store.save_bars("AAA", screen(changed), LATER)
    assert content(store) == before
    assert store.save_bars("AAA", screen(changed), LATER).changed > 0


@pytest.mark.parametrize(("column", "value"), [("settlement_date", None), ("document", None), ("shares_short", "many")])
def test_one_value_that_cannot_be_stored_leaves_the_whole_load_out(
    store: MarketStore, column: str, value: object
) -> None:
    good = pd.DataFrame([interest(f"2012-04-{day} 20:30", day * 1e6, f"D{day}") for day in range(10, 30)])
    store.save_facts("short_interest", "AAA", good.iloc[:3], LOADED)
    before = content(store)
    bad = good.assign(shares_short=good["shares_short"] * 2).astype({column: object})
    bad.loc[15, column] = value
    with pytest.raises((DataError, sa.exc.IntegrityError, ValueError), match=rf"{column}|{value}"):
        store.save_facts("short_interest", "AAA", bad, LATER)
    assert content(store) == before


def test_rows_without_a_column_of_their_identity_are_refused_by_its_name(store: MarketStore) -> None:
    with pytest.raises(DataError, match=r"short_interest: the rows lack settlement_date, document"):
        save(store, "short_interest", {"available_at": pd.Timestamp("2012-04-24"), "shares_short": 1.0})


def test_readers_see_nothing_of_a_load_that_is_under_way(url: str, store: MarketStore) -> None:
    store.save_many_bars(many(2, 10), LOADED)
    other = MarketStore(url)
    with store.database.write() as connection:
        changed = many(2, 10, scale=2.0)
        changed["available_at"] = changed["date"] + pd.Timedelta(hours=21)
        versions.save_versions(connection, VERSIONED["bars"], changed, LATER.replace(tzinfo=None), None)
        assert other.load_bars("S001")["close"].tolist() == raw_bars(10)["close"].tolist()
    assert other.load_bars("S001")["close"].tolist() == (raw_bars(10)["close"] * 2).tolist()
    other.close()


def test_bars_and_their_actions_are_read_from_one_state(
    url: str, store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = list(AAPL)
    store.save_bars("AAPL", bars_at({day: AAPL[day] for day in days[:-1]}), LOADED)
    before = store.load_bars("AAPL")
    other, really = MarketStore(url), store_module._actions

    def meanwhile(*given: Any) -> pd.DataFrame:
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "_actions", really)
            other.save_bars("AAPL", bars_at(AAPL, split=SPLITS), LATER)
        return really(*given)

    monkeypatch.setattr(store_module, "_actions", meanwhile)
    pd.testing.assert_frame_equal(store.load_bars("AAPL"), before, check_exact=True)
    other.close()


_BIG_LOAD = """
    import sys
    from datetime import UTC, datetime
    from signals_core.market_data.store import MarketStore
    from tests.core.test_market_store import BIG, LATER, many
    store, bars = MarketStore(sys.argv[1]), many(*BIG, scale=2.0)
    print("begins", flush=True)
    store.save_many_bars(bars, LATER)
    print("done", flush=True)
"""
BIG = (60, 600)


def start_python(script: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
def test_a_process_killed_in_a_big_load_leaves_the_old_state_or_the_new_and_never_one_between(
    url: str, store: MarketStore
) -> None:
    old, new = many(*BIG), many(*BIG, scale=2.0)
    began = time.perf_counter()
    store.save_many_bars(old, LOADED)
    lasts = time.perf_counter() - began

    def state() -> str:
        found = [store.load_bars(symbol)["close"].to_numpy() for symbol in sorted(set(old["symbol"]))]
        values = np.concatenate(found)
        states = {"old": old, "new": new}
        return next((name for name, bars in states.items() if np.array_equal(values, bars["close"])), "between")

    moments = random.Random(20).sample(range(2, 100), 3)
    seen = []
    for percent in sorted(moments):
        if seen and seen[-1] == "new":
            break
        with start_python(_BIG_LOAD, url) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            time.sleep(lasts * percent / 100)
            process.send_signal(signal.SIGKILL)
        seen.append(state())
    assert set(seen) <= {"old", "new"}
    assert "old" in seen, "no kill came in time: the test shows nothing"
    store.save_many_bars(new, LAST)
    assert state() == "new"
    assert store.restated("bars") == dict.fromkeys(sorted(set(old["symbol"])), BIG[1])


# -- several at once -------------------------------------------------------------------------------------------


def test_threads_that_write_at_once_lose_nothing_also_while_the_schema_is_made(url: str) -> None:
    ready = threading.Barrier(4)

    def write(symbol: str) -> int:
        ready.wait()
        opened = MarketStore(url)
        try:
            return sum(opened.save_bars(f"{symbol}{n}", screen(raw_bars()), LOADED).new for n in range(4))
        finally:
            opened.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, "ABCD")) == [120] * 4
    opened = MarketStore(url)
    assert {found.sessions for found in opened.coverage().values()} == {30}
    assert len(opened.latest_bars()) == 16
    opened.close()


_WRITER = """
    import sys
    from signals_core.market_data.store import MarketStore
    from tests.core.stores import LOADED, raw_bars, screen
    print("ready", flush=True)
    sys.stdin.readline()
    store = MarketStore(sys.argv[1])
    for number in range(10):
        assert store.save_bars(f"{sys.argv[2]}{number}", screen(raw_bars()), LOADED).new == 30
"""


def test_processes_that_write_at_once_lose_nothing_also_while_the_schema_is_made(url: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    writers = [subprocess.Popen([*command, name], **pipes) for name in "AB"]
    assert [writer.stdout.readline() for writer in writers if writer.stdout] == ["ready\n"] * 2
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0]
    opened = MarketStore(url)
    assert len(opened.latest_bars()) == 20
    opened.close()


def test_writers_of_the_same_symbol_at_once_store_each_bar_once(url: str, store: MarketStore) -> None:
    for attempt in range(5):
        ready, symbol = threading.Barrier(4), f"A{attempt}"

        def write(_: int, ready: threading.Barrier = ready, symbol: str = symbol) -> Saved:
            opened = MarketStore(url)
            try:
                ready.wait()
                return opened.save_bars(symbol, screen(raw_bars()), LOADED)
            finally:
                opened.close()

        with ThreadPoolExecutor(4) as pool:
            saved = list(pool.map(write, range(4)))
        assert sum(saved, Saved()) == Saved(new=30)
        assert len(store.load_bars(symbol)) == 30


def test_writers_who_disagree_at_once_leave_a_version_of_each(url: str, store: MarketStore) -> None:
    for attempt in range(5):
        ready, symbol = threading.Barrier(4), f"A{attempt}"

        def write(number: int, ready: threading.Barrier = ready, symbol: str = symbol) -> Saved:
            opened = MarketStore(url)
            bars = raw_bars()
            bars["volume"] += number
            try:
                ready.wait()
                return opened.save_bars(symbol, screen(bars), LOADED + timedelta(hours=number))
            finally:
                opened.close()

        with ThreadPoolExecutor(4) as pool:
            saved = list(pool.map(write, range(4)))
        assert sum(saved, Saved()) == Saved(new=30, restated=90)


def test_writers_who_withdraw_the_same_bar_at_once_withdraw_it_once(url: str, store: MarketStore) -> None:
    full = screen(raw_bars())
    without = replace(full, good=full.good.drop(full.good.index[11]))
    for attempt in range(5):
        ready, symbol = threading.Barrier(4), f"A{attempt}"
        store.save_bars(symbol, full, LOADED)

        def write(number: int, ready: threading.Barrier = ready, symbol: str = symbol) -> Saved:
            opened = MarketStore(url)
            try:
                ready.wait()
                return opened.save_bars(symbol, without, LATER + timedelta(hours=number))
            finally:
                opened.close()

        with ThreadPoolExecutor(4) as pool:
            saved = list(pool.map(write, range(4)))
        assert sum(saved, Saved()) == Saved(withdrawn=1)


def test_bulk_writers_whose_symbols_come_in_another_order_do_not_block_each_other(url: str, store: MarketStore) -> None:
    for attempt in range(3):
        bars, ready = many(20, 100).assign(volume=float(attempt)), threading.Barrier(2)
        orders = [bars, bars.iloc[::-1]]

        def write(given: pd.DataFrame, ready: threading.Barrier = ready, attempt: int = attempt) -> Saved:
            opened = MarketStore(url)
            try:
                ready.wait()
                return opened.save_many_bars(given, LOADED + timedelta(days=attempt))
            finally:
                opened.close()

        with ThreadPoolExecutor(2) as pool:
            saved = list(pool.map(write, orders))
        assert sum(saved, Saved()).changed == 2000


# -- the database ----------------------------------------------------------------------------------------------


def test_the_version_names_the_backend_and_the_tier_what_it_can_do(store: MarketStore) -> None:
    backend, number = store.version().split(maxsplit=1)
    assert backend == store.backend
    assert number[0].isdigit()
    assert store.tier in {"sqlite": ("sqlite",), "postgresql": ("postgresql", "timescaledb")}[backend]
    assert ("with timescaledb" in number) == (store.tier == "timescaledb")


def test_what_one_process_stored_the_next_one_reads(tmp_path: Path, screened: ScreenedBars) -> None:
    first = MarketStore.embedded(tmp_path / "data" / "market.sqlite")
    first.save_bars("AAA", screened, LOADED)
    first.close()
    second = MarketStore.embedded(tmp_path / "data" / "market.sqlite")
    assert second.coverage()["AAA"].sessions == 30
    second.close()


def test_opening_a_store_again_executes_nothing_that_changes_it(url: str, store: MarketStore) -> None:
    with recorded_sql() as statements:
        MarketStore(url).close()
    changes = ("create", "alter", "drop", "insert", "delete", "update")
    assert [statement for statement in statements if statement.lower().startswith(changes)] == []
    assert statements


def test_a_schema_of_a_later_program_is_refused(url: str, store: MarketStore) -> None:
    with store.database.write() as connection:
        connection.execute(sa.text(f"update schema_version set version = {migrations.VERSION + 1}"))
    with pytest.raises(DataError, match=rf"schema version {migrations.VERSION + 1}.*upgrade"):
        MarketStore(url)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(ServiceDown, match=r"(?s)127\.0\.0\.1:1/.*stores\.market_url") as down:
        MarketStore("postgresql+psycopg2://me:secret@127.0.0.1:1/market")
    assert "secret" not in str(down.value)


# -- TimescaleDB -----------------------------------------------------------------------------------------------


def test_where_timescaledb_is_not_loaded_nothing_of_it_is_executed(url: str) -> None:
    with recorded_sql() as statements:
        opened = MarketStore(url)
        opened.save_bars("AAA", screen(raw_bars()), LOADED)
        opened.latest_bars()
        opened.version()
    if opened.tier == "timescaledb":
        pytest.skip("this server has loaded timescaledb")
    text = "\n".join(statements).lower()
    assert "create table bars" in text
    assert not any(word in text for word in ("timescale", "hypertable", "extension", "compress"))
    opened.close()


class FakeConnection:
    """Answers what a PostgreSQL server would, and keeps what it was asked."""

    def __init__(self, answers: dict[str, str], dialect: str = "postgresql") -> None:
        self.dialect = SimpleNamespace(name=dialect)
        self.statements: list[str] = []
        self._answers = answers

    def execute(self, statement: sa.TextClause) -> SimpleNamespace:
        self.statements.append(" ".join(str(statement).split()))
        return SimpleNamespace(scalar_one=lambda: self._answers[str(statement).lower()])


@pytest.mark.parametrize(
    ("loaded", "tier"),
    [
        ("", "postgresql"), ("pg_stat_statements", "postgresql"), ("timescaledb_toolkit", "postgresql"),
        ("timescaledb", "timescaledb"), ("pg_stat_statements, timescaledb", "timescaledb"),
    ],
)  # fmt: skip
def test_timescaledb_counts_only_where_its_library_is_loaded(loaded: str, tier: str) -> None:
    connection: Any = FakeConnection({"show shared_preload_libraries": loaded})
    assert tier_of(connection) == tier


def test_sqlite_is_not_asked_for_libraries() -> None:
    connection: Any = FakeConnection({}, dialect="sqlite")
    assert tier_of(connection) == "sqlite"
    assert connection.statements == []


@pytest.mark.parametrize(("licence", "compresses"), [("timescale", True), ("apache", False)])
def test_a_table_becomes_a_hypertable_by_year_compressed_only_where_the_licence_allows(
    licence: str, compresses: bool
) -> None:
    connection: Any = FakeConnection({"show timescaledb.license": licence})
    make_hypertables(connection, {"bars": "date"})
    assert connection.statements[:3] == [
        "CREATE EXTENSION IF NOT EXISTS timescaledb",
        "SHOW timescaledb.license",
        "SELECT create_hypertable('bars', by_range('date', INTERVAL '1 year'), "
        "if_not_exists => true, migrate_data => true)",
    ]
    assert connection.statements[3:] == (
        [
            "ALTER TABLE bars SET (timescaledb.compress, timescaledb.compress_segmentby = 'symbol')",
            "SELECT add_compression_policy('bars', INTERVAL '2 years', if_not_exists => true)",
        ]
        if compresses
        else []
    )


def test_a_new_store_on_timescaledb_makes_the_bars_a_hypertable_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, str]] = []

    def note(connection: sa.Connection, dates: dict[str, str]) -> None:
        assert sa.inspect(connection).has_table("bars")
        made.append(dates)

    monkeypatch.setattr(migrations, "tier_of", lambda _: "timescaledb")
    monkeypatch.setattr(migrations, "make_hypertables", note)
    for _ in range(2):
        opened = MarketStore(url)
        assert opened.tier == "timescaledb"
        opened.close()
    assert made == [{"bars": "date"}]
    assert "date" in {column.name for column in VERSIONED["bars"].table.primary_key}


def test_two_years_of_a_symbol_are_the_same_as_that_part_of_all(store: MarketStore) -> None:
    raw = make_bars("AAA").reset_index(drop=True)
    raw["split"] = raw.index.map({300: 2.0})
    store.save_bars("AAA", screen(raw), LOADED)
    part = store.load_bars("AAA", date(2020, 6, 1))
    pd.testing.assert_frame_equal(part, store.load_bars("AAA").loc["2020-06-01":], check_exact=True, check_freq=False)
