"""Bars that cannot be are refused by row and reason."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.calendar import sessions_between
from signals_core.errors import DataError
from signals_core.market_data.schemas import adjust, screen_bars, validate_bars
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2020, 1, 1), date(2022, 7, 2))


@pytest.fixture
def raw() -> pd.DataFrame:
    return make_bars("AAA").iloc[:10].reset_index(drop=True)


def test_good_bars_pass_unchanged(raw: pd.DataFrame) -> None:
    screened = screen_bars(raw, "AAA", SESSIONS)
    assert screened.rejected.empty
    pd.testing.assert_frame_equal(screened.good.drop(columns="adjustment"), raw.set_index("date"), check_freq=False)
    assert (screened.good["adjustment"] == 1).all()
    assert validate_bars(screened.good, "AAA") is not None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("date", "no date", "date cannot be read"),
        ("date", "2020-01-04", "exchange was closed"),
        ("date", "2020-01-20", "exchange was closed"),
        ("open", np.nan, "price or volume is missing or infinite"),
        ("volume", np.inf, "price or volume is missing or infinite"),
        ("close", "n/a", "price or volume is missing or infinite"),
        ("low", 0.0, "price or adjustment is not positive"),
        ("volume", -1.0, "volume is negative"),
        ("high", 1.0, "high is below open, low or close"),
        ("low", 1e6, "high is below open, low or close"),
    ],
)
def test_each_bad_row_is_rejected_with_its_reason(raw: pd.DataFrame, column: str, value: object, reason: str) -> None:
    raw[column] = raw[column].astype(object)
    raw.loc[4, column] = value
    screened = screen_bars(raw, "AAA", SESSIONS)
    assert list(screened.rejected.index) == [4]
    assert list(screened.rejected["reason"]) == [reason]
    assert list(screened.good.index) == list(SESSIONS[[0, 1, 2, 3, 5, 6, 7, 8, 9]])


def test_a_low_above_the_close_is_rejected(raw: pd.DataFrame) -> None:
    raw.loc[2, ["open", "high", "low", "close"]] = [100.0, 110.0, 105.0, 107.0]
    assert list(screen_bars(raw, "AAA", SESSIONS).rejected["reason"]) == ["low is above open or close"]


def test_rounding_of_adjusted_prices_is_no_error(raw: pd.DataFrame) -> None:
    raw["high"] = np.maximum(raw["open"], raw["close"]) * (1 - 5e-7)
    assert screen_bars(raw, "AAA", SESSIONS).rejected.empty
    raw["high"] = np.maximum(raw["open"], raw["close"]) * (1 - 5e-6)
    assert len(screen_bars(raw, "AAA", SESSIONS).rejected) == 10


def test_of_a_repeated_date_the_last_row_counts(raw: pd.DataFrame) -> None:
    again = raw.iloc[[3]].assign(volume=7.0)
    screened = screen_bars(pd.concat([raw, again]), "AAA", SESSIONS)
    assert list(screened.rejected["reason"]) == ["date occurs more than once"]
    assert list(screened.rejected.index) == [3]
    assert screened.good.loc[SESSIONS[3], "volume"] == 7.0


def test_a_date_repeated_at_another_time_of_day_is_still_one_session(raw: pd.DataFrame) -> None:
    again = raw.iloc[[3]].assign(date=raw["date"].iloc[3] + pd.Timedelta(hours=16), volume=7.0)
    screened = screen_bars(pd.concat([raw, again]), "AAA", SESSIONS)
    assert screened.good.index.is_unique


def test_a_bad_repetition_does_not_cost_the_good_bar_of_its_date(raw: pd.DataFrame) -> None:
    again = raw.iloc[[3]].assign(volume=-1.0)
    screened = screen_bars(pd.concat([raw, again]), "AAA", SESSIONS)
    assert list(screened.rejected["reason"]) == ["volume is negative"]
    assert len(screened.good) == 10


def test_rows_in_any_order_come_out_sorted(raw: pd.DataFrame) -> None:
    screened = screen_bars(raw.iloc[::-1], "AAA", SESSIONS)
    assert screened.good.index.equals(SESSIONS[:10].rename("date"))


def test_a_missing_column_and_a_time_zone_are_named(raw: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"bars of AAA lack the column\(s\) low, volume"):
        screen_bars(raw.drop(columns=["low", "volume"]), "AAA", SESSIONS)
    with pytest.raises(DataError, match="AAA carry a time zone"):
        screen_bars(raw.assign(date=raw["date"].dt.tz_localize("UTC")), "AAA", SESSIONS)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["open", "high", "low", "close", "volume"]),
                          st.sampled_from([np.nan, -1.0, 0.0, 1.0, 1e9])), max_size=6))  # fmt: skip
def test_what_screening_keeps_the_schema_accepts_and_nothing_is_lost(spoiled: list[tuple[int, str, float]]) -> None:
    raw = make_bars("AAA", end=date(2020, 1, 20)).iloc[:10].reset_index(drop=True)
    for row, column, value in spoiled:
        raw.loc[row, column] = value
    screened = screen_bars(raw, "AAA", SESSIONS)
    validate_bars(screened.good, "AAA")
    assert len(screened.good) + len(screened.rejected) == 10


def test_the_schema_names_symbol_column_date_and_rule(raw: pd.DataFrame) -> None:
    bars = raw.set_index("date")
    bars.loc["2020-01-07", "volume"] = -3.0
    with pytest.raises(DataError, match=r"bars of AAA break the schema: volume at 2020-01-07.*greater_than_or_equal"):
        validate_bars(bars, "AAA")


def test_the_schema_names_each_broken_row_and_not_one_row_several_times(raw: pd.DataFrame) -> None:
    bars = raw.set_index("date")
    bars.loc["2020-01-07", "high"] = 1.0
    bars.loc["2020-01-09", "volume"] = -3.0
    with pytest.raises(DataError) as refused:
        validate_bars(bars, "AAA")
    assert "2020-01-07" in str(refused.value)
    assert "2020-01-09" in str(refused.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b.iloc[::-1],
        lambda b: pd.concat([b, b.iloc[[-1]]]),
        lambda b: b.assign(extra=1.0),
        lambda b: b.drop(columns="open"),
        lambda b: b.set_axis(b.index.tz_localize("UTC"), axis=0),
        lambda b: b.assign(high=b["low"] * 0.9),
        lambda b: b.assign(low=b["high"]),
    ],
    ids=["unsorted", "repeated date", "unknown column", "missing column", "time zone", "high", "low"],
)
def test_the_schema_refuses(raw: pd.DataFrame, spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="bars of AAA break the schema"):
        validate_bars(spoil(raw.set_index("date")), "AAA")


def test_a_two_for_one_split_leaves_no_jump() -> None:
    # AAPL as traded around its split of 2005-02-28.
    stored = pd.DataFrame(
        {"open": [89.62, 44.68], "high": [89.91, 45.14], "low": [88.19, 43.96], "close": [88.99, 44.86],
         "volume": [16_348_400.0, 11_635_900.0], "adjustment": [0.5, 1.0]},
        index=pd.DatetimeIndex(["2005-02-25", "2005-02-28"], name="date"),
    )  # fmt: skip
    adjusted = adjust(stored)
    assert adjusted["close"].tolist() == [44.495, 44.86]
    assert adjusted["volume"].tolist() == [32_696_800.0, 11_635_900.0]
    assert (adjusted["close"] * adjusted["volume"]).tolist() == pytest.approx(
        (stored["close"] * stored["volume"]).tolist()
    )
