"""The schema of bars refuses what breaks it, and names symbol, column, row and rule."""

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError
from signals_core.market_data.schemas import high_too_low, low_too_high, validate_bars
from tests.project.bars import make_bars


@pytest.fixture
def bars() -> pd.DataFrame:
    return make_bars("AAA").iloc[:10].set_index("date")


def test_good_bars_pass_unchanged_with_or_without_the_factors_of_adjustment(bars: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(validate_bars(bars, "AAA"), bars, check_exact=True)
    adjusted = bars.assign(adjustment=0.5, split_adjustment=1.0)
    pd.testing.assert_frame_equal(validate_bars(adjusted, "AAA"), adjusted, check_exact=True)


def test_no_bars_at_all_fit_the_schema(bars: pd.DataFrame) -> None:
    assert validate_bars(bars.iloc[:0], "AAA").empty


def test_the_schema_names_symbol_column_date_and_rule(bars: pd.DataFrame) -> None:
    bars.loc["2020-01-07", "volume"] = -3.0
    with pytest.raises(DataError, match=r"bars of AAA break the schema: volume at 2020-01-07.*greater_than_or_equal"):
        validate_bars(bars, "AAA")


def test_the_schema_names_each_broken_row_and_not_one_row_several_times(bars: pd.DataFrame) -> None:
    bars.loc["2020-01-07", "high"] = 1.0
    bars.loc["2020-01-09", "volume"] = -3.0
    with pytest.raises(DataError) as refused:
        validate_bars(bars, "AAA")
    assert str(refused.value).count("2020-01-07") == 1
    assert str(refused.value).count("2020-01-09") == 1


def test_of_many_broken_rows_five_are_shown_and_the_rest_counted(bars: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"and 5 more$"):
        validate_bars(bars.assign(volume=-1.0), "AAA")


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
        lambda b: b.assign(close=np.nan),
        lambda b: b.assign(adjustment=0.0),
        lambda b: b.assign(split_adjustment=-1.0),
        lambda b: b.assign(volume=b["volume"].astype("int64")),
    ],
    ids=[
        "unsorted", "repeated date", "unknown column", "missing column", "time zone", "high", "low", "missing value",
        "adjustment", "split adjustment", "integers",
    ],
)  # fmt: skip
def test_the_schema_refuses(bars: pd.DataFrame, spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="bars of AAA break the schema"):
        validate_bars(spoil(bars), "AAA")


def test_a_millionth_is_rounding_and_more_is_not() -> None:
    bars = pd.DataFrame({"open": 100.0, "close": 100.0, "high": [100 - 5e-5, 100 - 5e-4], "low": 99.0})
    assert high_too_low(bars).tolist() == [False, True]
    bars = pd.DataFrame({"open": 100.0, "close": 100.0, "high": 101.0, "low": [100 + 5e-5, 100 + 5e-4]})
    assert low_too_high(bars).tolist() == [False, True]
