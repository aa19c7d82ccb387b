"""What can be stored goes on as it was; what cannot is rejected by row, each with its reason."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.calendar import sessions_between
from signals_core.errors import DataError
from signals_core.market_data.dates import read_dates
from signals_core.market_data.schemas import BAR_COLUMNS, validate_bars
from signals_core.market_data.screening import (
    check_symbol,
    screen_bars,
    screen_facts,
    screen_members,
    summary,
)
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2020, 1, 1), date(2022, 7, 2))


@pytest.fixture
def raw() -> pd.DataFrame:
    return make_bars("AAA").iloc[:10].reset_index(drop=True)


def put(frame: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    """The frame with another value in one cell, whatever its type."""
    cells = list(frame[column])
    cells[row] = value
    return frame.assign(**{column: pd.Series(cells, dtype=object)})


def reasons(raw: pd.DataFrame) -> dict[int, str]:
    """Row and reason of what is rejected."""
    return screen_bars(raw, "AAA", SESSIONS).rejected["reason"].to_dict()


# -- bars --------------------------------------------------------------------------------------------------


def test_good_bars_pass_unchanged(raw: pd.DataFrame) -> None:
    screened = screen_bars(raw, "AAA", SESSIONS)
    assert screened.rejected.empty
    assert screened.actions.empty
    pd.testing.assert_frame_equal(screened.good, raw.set_index("date"), check_exact=True, check_freq=False)
    validate_bars(screened.good, "AAA")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("date", "no date", "date cannot be read"),
        ("date", "03/04/2020", "date cannot be read"),
        ("date", "2020-02-30", "date cannot be read"),
        ("date", "2020-1-8", "date cannot be read"),
        ("date", "2020-01-08T99:99", "date cannot be read"),
        ("date", 20200108, "date cannot be read"),
        ("date", 1.5784416e18, "date cannot be read"),
        ("date", True, "date cannot be read"),
        ("date", None, "date is missing"),
        ("date", pd.NaT, "date is missing"),
        ("date", pd.NA, "date is missing"),
        ("date", np.nan, "date is missing"),
        ("date", "  ", "date is missing"),
        ("date", "2020-01-08T00:00-05:00", "date carries a time zone: give the exchange's date"),
        ("date", "2020-01-08 00:00:00+0000", "date carries a time zone: give the exchange's date"),
        ("date", "2020-01-08Z", "date carries a time zone: give the exchange's date"),
        ("date", "2020-01-08T16:00:00.5 UTC", "date carries a time zone: give the exchange's date"),
        ("date", pd.Timestamp("2020-01-08", tz="UTC"), "date carries a time zone: give the exchange's date"),
        ("date", datetime(2020, 1, 8, tzinfo=UTC), "date carries a time zone: give the exchange's date"),
        ("date", "2020-01-04", "exchange was closed"),
        ("date", "2020-01-20", "exchange was closed"),
        ("date", "1889-01-04", "exchange was closed"),
        ("open", np.nan, "price or volume is missing or infinite"),
        ("open", None, "price or volume is missing or infinite"),
        ("open", "", "price or volume is missing or infinite"),
        ("open", "1,234.5", "price or volume is missing or infinite"),
        ("volume", np.inf, "price or volume is missing or infinite"),
        ("close", "n/a", "price or volume is missing or infinite"),
        ("close", True, "price or volume is missing or infinite"),
        ("close", np.True_, "price or volume is missing or infinite"),
        ("close", pd.Timestamp("2020-01-08"), "price or volume is missing or infinite"),
        ("close", [100.0], "price or volume is missing or infinite"),
        pytest.param(
            "close", 10**400, "price or volume is missing or infinite", id="close-an integer beyond all floats"
        ),
        ("low", 0.0, "price is not positive"),
        ("low", -1.0, "price is not positive"),
        ("volume", -1.0, "volume is negative"),
        ("high", 1.0, "high is below open, low or close"),
        ("low", 1e6, "high is below open, low or close"),
    ],
)
def test_each_bad_row_is_rejected_with_its_reason_and_costs_no_other(
    raw: pd.DataFrame, column: str, value: object, reason: str
) -> None:
    raw = put(raw, 4, column, value)
    screened = screen_bars(raw, "AAA", SESSIONS)
    assert screened.rejected["reason"].to_dict() == {4: reason}
    assert list(screened.good.index) == list(SESSIONS[[0, 1, 2, 3, 5, 6, 7, 8, 9]])


def test_a_low_above_the_close_is_rejected(raw: pd.DataFrame) -> None:
    raw.loc[2, ["open", "high", "low", "close"]] = [107.0, 110.0, 106.0, 105.0]
    raw.loc[3, ["open", "high", "low", "close"]] = [100.0, 110.0, 105.0, 107.0]
    assert reasons(raw) == {2: "low is above open or close", 3: "low is above open or close"}


def test_of_several_faults_of_a_row_the_first_is_named(raw: pd.DataFrame) -> None:
    raw.loc[2, ["open", "volume"]] = [np.nan, -1.0]
    assert reasons(put(raw, 2, "date", "2020-01-04")) == {2: "exchange was closed"}


def test_a_rejected_row_is_named_by_its_date_however_that_was_written(raw: pd.DataFrame) -> None:
    dates = [*raw["date"].dt.strftime("%Y%m%d")[:8], "x" * 50, "2020-01-15T16:00"]
    screened = screen_bars(raw.assign(date=dates, volume=-1.0), "AAA", SESSIONS)
    assert screened.rejected["item"].tolist() == [*SESSIONS[:8].strftime("%Y-%m-%d"), "x" * 40, "2020-01-15"]


def test_the_rows_of_another_symbol_are_rejected(raw: pd.DataFrame) -> None:
    raw["symbol"] = ["AAA", " AAA ", "BBB", "", None, "aaa", *["AAA"] * 4]
    assert reasons(raw) == dict.fromkeys([2, 3, 4, 5], "row is not of AAA")


def test_the_ticker_na_is_a_symbol_like_any_other(raw: pd.DataFrame) -> None:
    assert screen_bars(raw.assign(symbol="NA"), "NA", SESSIONS).rejected.empty


def test_a_column_with_a_time_zone_is_rejected_row_by_row(raw: pd.DataFrame) -> None:
    raw["date"] = raw["date"].dt.tz_localize("America/New_York")
    raw.loc[3, "date"] = pd.NaT
    text = "date carries a time zone: give the exchange's date"
    assert reasons(raw) == {**dict.fromkeys(range(10), text), 3: "date is missing"}


@pytest.mark.parametrize("kind", ["datetime64[ns]", "str", "string", "category", "object"])
def test_the_type_of_the_date_column_does_not_matter(raw: pd.DataFrame, kind: str) -> None:
    raw["date"] = raw["date"].astype(kind)
    assert screen_bars(raw, "AAA", SESSIONS).good.index.equals(SESSIONS[:10].rename("date"))


def test_numbers_as_texts_are_the_same_numbers(raw: pd.DataFrame) -> None:
    texts = raw.assign(**{name: raw[name].map(repr) for name in BAR_COLUMNS})
    pd.testing.assert_frame_equal(
        screen_bars(texts, "AAA", SESSIONS).good, screen_bars(raw, "AAA", SESSIONS).good, check_exact=True
    )


@pytest.mark.parametrize("kind", ["bool", "timedelta64[ns]", "datetime64[ns]", "complex128"])
def test_a_column_of_booleans_durations_moments_or_complex_numbers_holds_no_numbers(
    raw: pd.DataFrame, kind: str
) -> None:
    raw["volume"] = (raw["volume"] if kind == "bool" else raw["volume"].astype("int64")).astype(kind)
    assert reasons(raw) == dict.fromkeys(range(10), "price or volume is missing or infinite")


def test_rounding_of_adjusted_prices_is_no_error(raw: pd.DataFrame) -> None:
    raw["high"] = np.maximum(raw["open"], raw["close"]) * (1 - 5e-7)
    assert reasons(raw) == {}
    raw["high"] = np.maximum(raw["open"], raw["close"]) * (1 - 5e-6)
    assert len(reasons(raw)) == 10


def test_of_a_repeated_date_the_last_row_counts(raw: pd.DataFrame) -> None:
    again = raw.iloc[[3]].assign(volume=7.0)
    screened = screen_bars(pd.concat([raw, again]), "AAA", SESSIONS)
    assert screened.rejected["reason"].to_dict() == {3: "date occurs more than once"}
    assert screened.good.loc[SESSIONS[3], "volume"] == 7.0


def test_of_exactly_equal_rows_one_is_kept(raw: pd.DataFrame) -> None:
    screened = screen_bars(pd.concat([raw, raw, raw]), "AAA", SESSIONS)
    assert screened.rejected["reason"].to_dict() == dict.fromkeys(range(20), "date occurs more than once")
    pd.testing.assert_frame_equal(screened.good, raw.set_index("date"), check_freq=False)


def test_a_date_repeated_at_another_time_of_day_is_still_one_session(raw: pd.DataFrame) -> None:
    again = raw.iloc[[3]].assign(date=raw["date"].iloc[3] + pd.Timedelta(hours=16), volume=7.0)
    screened = screen_bars(pd.concat([raw, again]), "AAA", SESSIONS)
    assert screened.good.index.equals(SESSIONS[:10].rename("date"))
    assert screened.good.loc[SESSIONS[3], "volume"] == 7.0


def test_a_bad_repetition_does_not_cost_the_good_bar_of_its_date(raw: pd.DataFrame) -> None:
    again = raw.iloc[[3]].assign(volume=-1.0)
    screened = screen_bars(pd.concat([raw, again]), "AAA", SESSIONS)
    assert screened.rejected["reason"].to_dict() == {10: "volume is negative"}
    assert len(screened.good) == 10


def test_rows_in_any_order_under_any_index_come_out_sorted(raw: pd.DataFrame) -> None:
    screened = screen_bars(raw.iloc[::-1].set_axis(["x"] * 10, axis=0), "AAA", SESSIONS)
    pd.testing.assert_frame_equal(screened.good, raw.set_index("date"), check_freq=False)


def test_rows_after_a_day_that_is_named_are_left_out_and_not_rejected(raw: pd.DataFrame) -> None:
    raw = put(raw, 9, "volume", -1.0)
    screened = screen_bars(raw, "AAA", SESSIONS, until=SESSIONS[4].date())
    assert screened.good.index.equals(SESSIONS[:5].rename("date"))
    assert screened.rejected.empty


def test_an_action_of_a_session_that_has_not_closed_is_left_out_with_its_row(raw: pd.DataFrame) -> None:
    raw["split"] = [0.0] * 8 + [2.0, 0.0]
    assert screen_bars(raw, "AAA", SESSIONS, until=SESSIONS[7].date()).actions.empty
    assert len(screen_bars(raw, "AAA", SESSIONS, until=SESSIONS[8].date()).actions) == 1


def test_a_missing_column_is_named_with_those_there_are(raw: pd.DataFrame) -> None:
    with pytest.raises(
        DataError, match=r"^bars of AAA lack the column\(s\) low, volume; found date, open, high, close$"
    ):
        screen_bars(raw.drop(columns=["low", "volume"]), "AAA", SESSIONS)


@pytest.mark.parametrize("column", ["close", "date"])
def test_a_doubled_column_is_named(raw: pd.DataFrame, column: str) -> None:
    with pytest.raises(DataError, match=f"^bars of AAA have the column {column} more than once; found date, open"):
        screen_bars(pd.concat([raw, raw[[column]]], axis=1), "AAA", SESSIONS)


@pytest.mark.parametrize("kind", ["object", "float64", "int64", "bool", "str", "datetime64[ns]", "category"])
def test_no_rows_of_whatever_type_give_no_bars_of_the_right_types(raw: pd.DataFrame, kind: str) -> None:
    empty = pd.DataFrame({name: pd.Series([], dtype=kind) for name in raw.columns})
    screened = screen_bars(empty, "AAA", SESSIONS)
    assert (len(screened.good), len(screened.rejected), len(screened.actions)) == (0, 0, 0)
    assert screened.good.dtypes.to_dict() == dict.fromkeys(BAR_COLUMNS, np.dtype("float64"))
    assert screened.good.index.dtype == "datetime64[us]"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(BAR_COLUMNS),
                          st.sampled_from([np.nan, -1.0, 0.0, 1.0, 1e9])), max_size=6))  # fmt: skip
def test_what_screening_keeps_the_schema_accepts_and_nothing_is_lost(spoiled: list[tuple[int, str, float]]) -> None:
    raw = make_bars("AAA", end=date(2020, 1, 20)).iloc[:10].reset_index(drop=True)
    for row, column, value in spoiled:
        raw.loc[row, column] = value
    screened = screen_bars(raw, "AAA", SESSIONS)
    validate_bars(screened.good, "AAA")
    assert len(screened.good) + len(screened.rejected) == 10


def test_the_summary_counts_rows_by_reason(raw: pd.DataFrame) -> None:
    raw.loc[[2, 3], "volume"] = -1.0
    raw.loc[5, "open"] = np.nan
    rejected = screen_bars(raw, "AAA", SESSIONS).rejected
    assert summary(rejected) == {"volume is negative": 2, "price or volume is missing or infinite": 1}


# -- corporate actions -------------------------------------------------------------------------------------


def actions(raw: pd.DataFrame) -> list[tuple[str, str, float]]:
    found = screen_bars(raw, "AAA", SESSIONS).actions
    return [(str(row.ex_date.date()), row.kind, row.value) for row in found.itertuples(index=False)]


def test_splits_and_dividends_are_told_on_the_row_of_their_day(raw: pd.DataFrame) -> None:
    raw["split"] = [0.0, 1.0, np.nan, 4.0, 0, 0, 0, 0.1, 0, 0]
    raw["dividend"] = [0.0, 0, 0, 0, 0, 0.25, np.nan, 0.5, 0, 0]
    assert actions(raw) == [
        ("2020-01-07", "split", 4.0), ("2020-01-13", "split", 0.1),
        ("2020-01-09", "dividend", 0.25), ("2020-01-13", "dividend", 0.5),
    ]  # fmt: skip


def test_a_change_of_the_adjustment_is_a_factor_on_the_day_after_it(raw: pd.DataFrame) -> None:
    raw["adjustment"] = [0.49] * 3 + [0.98] * 4 + [1.0] * 3
    assert actions(raw) == [("2020-01-07", "factor", 0.5), ("2020-01-13", "factor", 0.98)]


def test_rounding_of_an_adjusted_close_is_no_action(raw: pd.DataFrame) -> None:
    raw["adjustment"] = 0.5 * (1 + 1e-10 * np.arange(10))
    assert actions(raw) == []


@pytest.mark.parametrize("column", ["split", "dividend"])
@pytest.mark.parametrize("value", [-1.0, np.inf, "two", True, np.True_])
def test_an_action_that_is_no_number_or_negative_costs_its_row(raw: pd.DataFrame, column: str, value: object) -> None:
    spoiled = put(raw.assign(**{column: 0.0}), 4, column, value)
    assert reasons(spoiled) == {4: f"{column} is no positive number"}
    assert actions(spoiled) == []


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, "", "x"])
def test_an_adjustment_must_be_given_and_positive(raw: pd.DataFrame, value: object) -> None:
    assert reasons(put(raw.assign(adjustment=1.0), 4, "adjustment", value)) == {4: "adjustment is no positive number"}


@pytest.mark.parametrize("value", ["", " ", None, 0, 1, "1.0"])
def test_no_split_may_be_written_in_many_ways(raw: pd.DataFrame, value: object) -> None:
    spoiled = put(raw.assign(split=0.0), 4, "split", value)
    assert (reasons(spoiled), actions(spoiled)) == ({}, [])


def test_a_split_and_a_dividend_count_although_the_bar_of_their_day_is_broken(raw: pd.DataFrame) -> None:
    raw[["split", "dividend"]] = 0.0
    raw.loc[3, ["open", "split", "dividend"]] = [np.nan, 2.0, 0.25]
    assert reasons(raw) == {3: "price or volume is missing or infinite"}
    assert actions(raw) == [("2020-01-07", "split", 2.0), ("2020-01-07", "dividend", 0.25)]


def test_of_another_symbol_or_a_closed_day_no_action_is_taken(raw: pd.DataFrame) -> None:
    raw = raw.assign(symbol="AAA", split=0.0)
    raw.loc[3, ["symbol", "split"]] = ["BBB", 2.0]
    raw.loc[5, "split"] = 3.0
    assert actions(put(raw, 5, "date", "2020-01-11")) == []


def test_the_factor_of_a_broken_bar_shows_on_the_next_good_one(raw: pd.DataFrame) -> None:
    raw["adjustment"] = [0.5] * 3 + [1.0] * 7
    raw.loc[3, "open"] = np.nan
    assert actions(raw) == [("2020-01-08", "factor", 0.5)]


# -- dates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["2020-01-08", " 2020-01-08 ", "20200108", "2020-01-08T16:00", "2020-01-08 16:00:00.123",
     pd.Timestamp("2020-01-08"), pd.Timestamp("2020-01-08 23:59"), date(2020, 1, 8), datetime(2020, 1, 8, 9, 30)],
)  # fmt: skip
def test_dates_are_read_as_midnights(value: object) -> None:
    dates, unreadable = read_dates(pd.Series([value], dtype=object))
    assert unreadable.tolist() == [""]
    assert dates.tolist() == [pd.Timestamp("2020-01-08")]
    assert dates.dtype == "datetime64[us]"


@pytest.mark.parametrize(
    "value", ["２０２０-01-08", "2020-01-08T99:99", "2020-13-01", "2020-W02-3", b"2020-01-08", "08.01.2020"]
)
def test_what_only_resembles_a_date_is_not_read(value: object) -> None:
    dates, unreadable = read_dates(pd.Series([value], dtype=object))
    assert dates.isna().all()
    assert unreadable.tolist() == ["date cannot be read"]


def test_reasons_keep_the_index_of_the_values() -> None:
    dates, unreadable = read_dates(pd.Series(["2020-01-08", None, "x"], index=[5, 3, 9]))
    assert list(dates.index) == [5, 3, 9]
    assert unreadable.to_dict() == {5: "", 3: "date is missing", 9: "date cannot be read"}


# -- symbols -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["A", "AAPL", "BRK.B", "BF-B", "NA", "^VIX", "^GSPC", "0700.HK", "X" * 16])
def test_a_ticker_is_a_symbol(symbol: str) -> None:
    assert check_symbol(symbol) == symbol


@pytest.mark.parametrize(
    "symbol", ["", " ", "N/A", "nan", "aapl", "AAPL ", "AAPL\n", "BRK/B", ".A", "^", "^^A", "ÄPL", "A;B", "X" * 17]
)
def test_what_is_no_ticker_is_named(symbol: str) -> None:
    with pytest.raises(DataError, match=r"is no symbol: capital letters, digits, dots and dashes, as in BRK\.B"):
        check_symbol(symbol)


# -- facts -------------------------------------------------------------------------------------------------

FILING = {"available_at": "2020-04-27T20:30", "period_end": "2020-03-31", "revenue": 100.0}
TRADE = {
    "available_at": "2020-04-27T20:30",
    "transaction_date": "2020-04-24",
    "code": "P",
    "shares": 10.0,
    "price": 5.0,
}
SETTLEMENT = {"available_at": "2020-04-27T20:30", "settlement_date": "2020-04-15", "shares_short": 10.0}


def facts(dataset: str, *rows: dict[str, Any], lag: int = 0) -> tuple[pd.DataFrame, dict[int, str]]:
    """The good rows, and row and reason of the others."""
    screened = screen_facts(dataset, pd.DataFrame(rows, dtype=object), "AAA", "XNYS", lag)
    return screened.good, screened.rejected["reason"].to_dict()


@pytest.mark.parametrize(
    ("dataset", "row", "change", "reason"),
    [
        ("fundamentals", FILING, {"period_end": "31.03.2020"}, "period_end: date cannot be read"),
        ("fundamentals", FILING, {"period_end": None}, "period_end: date is missing"),
        ("fundamentals", FILING, {"period_end": "2020-03-31Z"},
         "period_end: date carries a time zone: give the exchange's date"),
        ("fundamentals", FILING, {"available_at": ""}, "available_at: date is missing"),
        ("fundamentals", FILING, {"available_at": 1587933000}, "available_at: date cannot be read"),
        ("fundamentals", FILING, {"available_at": "03/04/2020"}, "available_at: date cannot be read"),
        ("fundamentals", FILING, {"available_at": "2020-04-27T25:00"}, "available_at: date cannot be read"),
        ("fundamentals", FILING, {"available_at": "1989-12-29", "period_end": "1989-09-30"},
         "available_at: date is outside 1990 … the end of next year"),
        ("fundamentals", FILING, {"available_at": "2199-12-29"},
         "available_at: date is outside 1990 … the end of next year"),
        ("fundamentals", FILING, {"available_at": "2020-03-30T23:59"}, "available_at is before period_end"),
        ("fundamentals", FILING, {"symbol": "BBB"}, "row is not of AAA"),
        ("fundamentals", FILING, {"revenue": "N/A"}, "revenue is no finite number"),
        ("fundamentals", FILING, {"revenue": np.inf}, "revenue is no finite number"),
        ("fundamentals", FILING, {"revenue": True}, "revenue is no finite number"),
        ("fundamentals", FILING, {"shares_outstanding": -1.0}, "shares_outstanding is negative"),
        ("fundamentals", FILING, {"dividends_per_share": -1.0}, "dividends_per_share is negative"),
        ("fundamentals", FILING, {"cash": -1.0}, "cash is negative"),
        ("fundamentals", FILING, {"current_assets": -1.0}, "current_assets is negative"),
        ("fundamentals", FILING, {"current_liabilities": -1.0}, "current_liabilities is negative"),
        ("fundamentals", FILING, {"fiscal_period": "H1"}, "fiscal_period is none of Q1, Q2, Q3, Q4, FY"),
        ("fundamentals", FILING, {"document": "x" * 65}, "document is longer than 64 characters"),
        ("insider_transactions", TRADE, {"shares": None}, "shares is missing"),
        ("insider_transactions", TRADE, {"shares": "many"}, "shares is no finite number"),
        ("insider_transactions", TRADE, {"price": -1.0}, "price is negative"),
        ("insider_transactions", TRADE, {"shares_after": -1.0}, "shares_after is negative"),
        ("insider_transactions", TRADE, {"code": "p"}, "code is none of Form 4's capital letters"),
        ("insider_transactions", TRADE, {"code": ""}, "code is none of Form 4's capital letters"),
        ("insider_transactions", TRADE, {"code": None}, "code is none of Form 4's capital letters"),
        ("insider_transactions", TRADE, {"code": "PSX"}, "code is longer than 2 characters"),
        ("insider_transactions", TRADE, {"insider": "x" * 201}, "insider is longer than 200 characters"),
        ("insider_transactions", TRADE, {"available_at": "2020-04-23T20:00"},
         "available_at is before transaction_date"),
        ("short_interest", SETTLEMENT, {"shares_short": ""}, "shares_short is missing"),
        ("short_interest", SETTLEMENT, {"shares_short": -1.0}, "shares_short is negative"),
        ("short_interest", SETTLEMENT, {"avg_daily_volume": -1.0}, "avg_daily_volume is negative"),
        ("short_interest", SETTLEMENT, {"shares_float": -1.0}, "shares_float is negative"),
        ("short_interest", SETTLEMENT, {"available_at": "2020-04-14"}, "available_at is before settlement_date"),
    ],
)  # fmt: skip
def test_each_bad_fact_is_rejected_with_its_reason_and_costs_no_other(
    dataset: str, row: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    other = {**row, "available_at": "2020-05-27T20:30"}
    if "symbol" in change:
        other["symbol"] = "AAA"
    good, rejected = facts(dataset, {**row, **change}, other)
    assert rejected == {0: reason}
    assert good["available_at"].tolist() == [pd.Timestamp("2020-05-27 20:30")]


def test_losses_debts_and_negative_equity_are_figures_like_others() -> None:
    good, rejected = facts("fundamentals", {**FILING, "net_income": -1.0, "total_equity": -2.0, "ebitda": -3.0})
    assert rejected == {}
    assert good[["net_income", "total_equity", "ebitda"]].values.tolist() == [[-1.0, -2.0, -3.0]]


def test_a_figure_that_was_not_filed_is_missing_and_no_fault() -> None:
    good, rejected = facts("fundamentals", {**FILING, "eps": "", "cash": None})
    assert rejected == {}
    assert good[["eps", "cash", "total_debt"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("dataset", "row", "column"),
    [("fundamentals", FILING, "period_end"), ("insider_transactions", TRADE, "code"),
     ("insider_transactions", TRADE, "shares"), ("short_interest", SETTLEMENT, "shares_short"),
     ("short_interest", SETTLEMENT, "available_at")],
)  # fmt: skip
def test_a_missing_or_doubled_column_of_facts_is_named(dataset: str, row: dict[str, Any], column: str) -> None:
    frame = pd.DataFrame([row])
    with pytest.raises(DataError, match=rf"^{dataset} of AAA lack the column\(s\) {column}; found "):
        screen_facts(dataset, frame.drop(columns=column), "AAA", "XNYS")
    with pytest.raises(DataError, match=f"^{dataset} of AAA have the column {column} more than once; found "):
        screen_facts(dataset, pd.concat([frame, frame[[column]]], axis=1), "AAA", "XNYS")


@pytest.mark.parametrize("kind", ["object", "float64", "bool", "str", "datetime64[ns]", "category"])
@pytest.mark.parametrize(
    ("dataset", "row"), [("fundamentals", FILING), ("insider_transactions", TRADE), ("short_interest", SETTLEMENT)]
)
def test_no_facts_of_whatever_type_are_no_facts(dataset: str, row: dict[str, Any], kind: str) -> None:
    empty = pd.DataFrame({name: pd.Series([], dtype=kind) for name in row})
    screened = screen_facts(dataset, empty, "AAA", "XNYS")
    assert (len(screened.good), len(screened.rejected)) == (0, 0)


@pytest.mark.parametrize(
    ("given_moment", "expected"),
    [
        ("2020-04-27", "2020-04-27 20:00"),  # the close, 16:00 in New York
        ("20200427", "2020-04-27 20:00"),
        ("2020-01-27", "2020-01-27 21:00"),  # in winter
        ("2020-11-27", "2020-11-27 18:00"),  # closes at 13:00 after Thanksgiving
        ("2020-04-25", "2020-04-27 20:00"),  # a Saturday: the next session
        ("2020-05-25", "2020-05-26 20:00"),  # Memorial Day
        (date(2020, 4, 27), "2020-04-27 20:00"),
        (pd.Timestamp("2020-04-27"), "2020-04-27 20:00"),
        ("2020-04-27T00:00", "2020-04-27 20:00"),  # midnight stands for a date
        ("2020-04-27T20:30", "2020-04-27 20:30"),
        ("2020-04-27T16:30-04:00", "2020-04-27 20:30"),
        ("2020-04-27 16:30:05.25-0400", "2020-04-27 20:30:05.25"),
        ("2020-04-27T20:30Z", "2020-04-27 20:30"),
        ("2020-04-27T00:00Z", "2020-04-27 00:00"),  # with an offset it is a moment
        (pd.Timestamp("2020-04-27 16:30", tz="America/New_York"), "2020-04-27 20:30"),
        (datetime(2020, 4, 27, 20, 30, tzinfo=UTC), "2020-04-27 20:30"),
    ],
)
def test_a_plain_date_means_a_close_and_a_moment_itself_in_utc(given_moment: object, expected: str) -> None:
    row = {**SETTLEMENT, "settlement_date": "2020-01-15"}
    good, rejected = facts("short_interest", {**row, "available_at": given_moment})
    assert rejected == {}
    assert good["available_at"].tolist() == [pd.Timestamp(expected)]
    assert good["available_at"].dtype == "datetime64[us]"


def test_a_plain_date_counts_later_where_the_source_is_slow_and_a_moment_does_not() -> None:
    rows = [{**SETTLEMENT, "available_at": at} for at in ("2020-04-24", "2020-04-25", "2020-04-24T20:30")]
    assert facts("short_interest", *rows, lag=1)[0]["available_at"].tolist() == [
        pd.Timestamp("2020-04-27 20:00"), pd.Timestamp("2020-04-28 20:00"), pd.Timestamp("2020-04-24 20:30"),
    ]  # fmt: skip


def test_a_column_of_moments_without_zone_is_utc_and_its_midnights_are_dates() -> None:
    moments = pd.DatetimeIndex(["2020-04-27 20:30", "2020-04-28 00:00"])
    frame = pd.DataFrame([SETTLEMENT, SETTLEMENT]).assign(available_at=moments)
    found = screen_facts("short_interest", frame, "AAA", "XNYS").good["available_at"]
    assert found.tolist() == [pd.Timestamp("2020-04-27 20:30"), pd.Timestamp("2020-04-28 20:00")]


def test_a_column_of_moments_with_a_zone_becomes_utc() -> None:
    moments = pd.DatetimeIndex(["2020-04-27 16:30", "2020-04-28 00:00"], tz="America/New_York")
    frame = pd.DataFrame([SETTLEMENT, SETTLEMENT]).assign(available_at=moments)
    found = screen_facts("short_interest", frame, "AAA", "XNYS").good["available_at"]
    assert found.tolist() == [pd.Timestamp("2020-04-27 20:30"), pd.Timestamp("2020-04-28 04:00")]


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("moment", ["1889-07-08 21:00", "2199-07-08 21:00"])
def test_a_moment_that_cannot_be_in_a_column_of_moments_is_rejected(zone: str | None, moment: str) -> None:
    moments = pd.DatetimeIndex(["2020-04-27 20:30", moment], tz=zone)
    row = {**SETTLEMENT, "settlement_date": "1889-01-02"}
    screened = screen_facts("short_interest", pd.DataFrame([row, row]).assign(available_at=moments), "AAA", "XNYS")
    text = "available_at: date is outside 1990 … the end of next year"
    assert screened.rejected["reason"].to_dict() == {1: text}


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_missing_moment_in_a_column_of_moments_is_rejected(zone: str | None) -> None:
    moments = pd.DatetimeIndex(["2020-04-27 20:30", None], tz=zone)
    frame = pd.DataFrame([SETTLEMENT, SETTLEMENT]).assign(available_at=moments)
    screened = screen_facts("short_interest", frame, "AAA", "XNYS")
    assert screened.rejected["reason"].to_dict() == {1: "available_at: date is missing"}
    assert len(screened.good) == 1


@pytest.mark.parametrize("kind", ["object", "str", "string", "category"])
def test_a_missing_document_is_named_by_its_moment_whatever_the_type_of_the_column(kind: str) -> None:
    documents = pd.Series(["x", None, " "], dtype=kind)
    frame = pd.DataFrame([{**SETTLEMENT, "available_at": f"2020-04-2{n}T20:30"} for n in (7, 8, 9)])
    good = screen_facts("short_interest", frame.assign(document=documents), "AAA", "XNYS").good
    assert good["document"].tolist() == ["x", "2020-04-28T20:30:00.000000", "2020-04-29T20:30:00.000000"]


def test_an_exact_duplicate_is_dropped_also_under_the_number_of_another_document() -> None:
    rows = [{**TRADE, "document": "a"}, {**TRADE, "document": "a"}, {**TRADE, "document": "b"}]
    good, rejected = facts("insider_transactions", *rows)
    assert rejected == {1: "exact duplicate", 2: "exact duplicate"}
    assert good["document"].tolist() == ["a"]


def test_lots_of_one_size_at_different_prices_are_both_kept_and_numbered() -> None:
    good, rejected = facts("insider_transactions", TRADE, {**TRADE, "price": 5.5}, {**TRADE, "shares": 7.0})
    assert rejected == {}
    assert good[["price", "line"]].values.tolist() == [[5.0, 0.0], [5.5, 1.0], [5.0, 0.0]]


def test_equal_lots_that_their_source_numbers_are_no_duplicates() -> None:
    good, rejected = facts("insider_transactions", {**TRADE, "line": 1}, {**TRADE, "line": 2}, {**TRADE, "line": 2})
    assert rejected == {2: "exact duplicate"}
    assert good["line"].tolist() == [1, 2]


@pytest.mark.parametrize("line", [np.inf, 1.5, 1e30, "first", True])
def test_a_lot_whose_number_is_no_whole_number_is_rejected(line: object) -> None:
    good, rejected = facts("insider_transactions", {**TRADE, "line": line}, {**TRADE, "line": 2})
    assert list(rejected) == [0]
    assert rejected[0].startswith("line")
    assert good["line"].tolist() == [2]


def test_two_versions_of_one_numbered_lot_at_one_moment_contradict_each_other() -> None:
    good, rejected = facts("insider_transactions", {**TRADE, "line": 1}, {**TRADE, "line": 1, "price": 5.5})
    assert rejected == {0: "contradicted by a later row about the same"}
    assert good["price"].tolist() == [5.5]


def test_of_rows_that_contradict_each_other_at_one_moment_the_last_counts() -> None:
    good, rejected = facts("fundamentals", FILING, {**FILING, "revenue": 90.0})
    assert rejected == {0: "contradicted by a later row about the same"}
    assert good["revenue"].tolist() == [90.0]


def test_a_restatement_and_another_document_are_rows_of_their_own() -> None:
    later, other = {**FILING, "available_at": "2020-08-01T12:00"}, {**FILING, "document": "x", "revenue": 90.0}
    good, rejected = facts("fundamentals", FILING, later, other)
    assert rejected == {}
    assert len(good) == 3


def test_a_broken_row_does_not_make_a_good_one_a_duplicate() -> None:
    good, rejected = facts("fundamentals", FILING, {**FILING, "revenue": "N/A"})
    assert rejected == {1: "revenue is no finite number"}
    assert len(good) == 1


# -- universe membership -----------------------------------------------------------------------------------


def members(*rows: tuple[object, object, object]) -> tuple[list[tuple[str, str, str]], dict[int, str]]:
    screened = screen_members(pd.DataFrame(rows, columns=["symbol", "start", "end"], dtype=object))
    good = [
        (row.symbol, str(row.valid_from.date()), "" if pd.isna(row.valid_to) else str(row.valid_to.date()))
        for row in screened.good.itertuples(index=False)
    ]
    return good, screened.rejected["reason"].to_dict()


def test_intervals_are_read_and_an_empty_end_is_a_member_still() -> None:
    good, rejected = members(
        ("BRK.B", "2010-02-16", ""), ("NA", "1996-01-02", "2001-06-01"), ("NA", "2003-01-02", None)
    )
    assert rejected == {}
    assert good == [
        ("BRK.B", "2010-02-16", ""), ("NA", "1996-01-02", "2001-06-01"), ("NA", "2003-01-02", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("N/A", "2000-01-03", ""), "is no symbol"),
        ((None, "2000-01-03", ""), "is no symbol"),
        (("", "2000-01-03", ""), "is no symbol"),
        (("aapl", "2000-01-03", ""), "is no symbol"),
        ((True, "2000-01-03", ""), "is no symbol"),
        (("AAA", "03/04/2000", ""), "start: date cannot be read"),
        (("AAA", "", ""), "start: date is missing"),
        (("AAA", "2000-01-03Z", ""), "start: date carries a time zone: give the exchange's date"),
        (("AAA", "2000-01-03", "N/A"), "end: date cannot be read"),
        (("AAA", "2000-01-03", 20010103), "end: date cannot be read"),
        (("AAA", "2000-01-03", "2001-01-03T00:00+00:00"), "end: date carries a time zone: give the exchange's date"),
        (("AAA", "2000-01-03", "2000-01-03"), "end is not after start"),
        (("AAA", "2000-01-03", "1999-01-03"), "end is not after start"),
    ],
)
def test_each_bad_interval_is_rejected_with_its_reason(row: tuple[object, object, object], reason: str) -> None:
    good, rejected = members(row, ("BBB", "2000-01-03", ""))
    assert rejected == {0: reason}
    assert good == [("BBB", "2000-01-03", "")]


def test_an_interval_given_twice_is_kept_once() -> None:
    good, rejected = members(("AAA", "2000-01-03", "2001-01-03"), ("AAA", "2000-01-03", "2001-01-03"))
    assert rejected == {1: "exact duplicate"}
    assert len(good) == 1


def test_an_interval_may_begin_on_the_day_on_which_the_one_before_ends() -> None:
    assert members(("AAA", "2001-01-03", ""), ("AAA", "2000-01-03", "2001-01-03"))[1] == {}


@pytest.mark.parametrize("end", ["2010-01-04", ""])
def test_an_interval_inside_any_earlier_one_is_rejected(end: str) -> None:
    inside = [("AAA", "2001-01-03", "2002-01-03"), ("AAA", "2005-01-03", "2006-01-03")]
    _, rejected = members(("AAA", "2000-01-03", end), *inside)
    assert rejected == dict.fromkeys([1, 2], "overlaps an earlier interval of the symbol")


def test_intervals_of_different_symbols_do_not_overlap() -> None:
    assert members(("AAA", "2000-01-03", ""), ("BBB", "2001-01-03", ""))[1] == {}


def test_the_names_of_the_published_files_are_known_and_a_missing_column_is_named() -> None:
    frame = pd.DataFrame({"ticker": ["AAA"], "start_date": ["2000-01-03"], "end_date": [""]})
    assert len(screen_members(frame).good) == 1
    with pytest.raises(DataError, match=r"^universe membership lack the column\(s\) end; found symbol, start$"):
        screen_members(frame.drop(columns="end_date"))
    with pytest.raises(DataError, match=r"^universe membership have the column symbol more than once"):
        screen_members(frame.assign(symbol="AAA"))


@pytest.mark.parametrize("kind", ["object", "float64", "bool", "str", "category"])
def test_no_intervals_of_whatever_type_are_none(kind: str) -> None:
    screened = screen_members(pd.DataFrame({name: pd.Series([], dtype=kind) for name in ("symbol", "start", "end")}))
    assert (len(screened.good), len(screened.rejected)) == (0, 0)
