"""Adjusted prices by hand, by a slower way, and by what they are for: returns with dividends reinvested."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.market_data.prices import Adjustment, adjust, effects_per_bar
from signals_core.market_data.schemas import PRICE_COLUMNS, validate_bars

DAYS = pd.DatetimeIndex(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"], name="date").as_unit("us")


def bars(*close: float, volume: float = 100.0) -> pd.DataFrame:
    """Bars of the first sessions of 2020; the open is 1% below the close, the range 2% either side."""
    prices = np.array(close)
    return pd.DataFrame(
        {"open": prices * 0.99, "high": prices * 1.02, "low": prices * 0.98, "close": prices, "volume": volume},
        index=DAYS[: len(close)],
    )


def actions(*rows: tuple[str, str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["ex_date", "kind", "value"])
    return frame.assign(ex_date=pd.to_datetime(frame["ex_date"]).astype("datetime64[us]"))


# -- by hand -----------------------------------------------------------------------------------------------


def test_a_two_for_one_split_leaves_no_jump() -> None:
    # AAPL as traded around its split of 2005-02-28.
    traded = pd.DataFrame(
        {"open": [89.62, 44.68], "high": [89.91, 45.14], "low": [88.19, 43.96], "close": [88.99, 44.86],
         "volume": [16_348_400.0, 11_635_900.0]},
        index=pd.DatetimeIndex(["2005-02-25", "2005-02-28"], name="date").as_unit("us"),
    )  # fmt: skip
    adjusted = adjust(traded, actions(("2005-02-28", "split", 2.0)))
    assert adjusted["close"].tolist() == [44.495, 44.86]
    assert adjusted["open"].tolist() == [44.81, 44.68]
    assert adjusted["volume"].tolist() == [32_696_800.0, 11_635_900.0]
    assert adjusted["adjustment"].tolist() == adjusted["split_adjustment"].tolist() == [0.5, 1.0]


def test_forward_the_first_bar_stays_as_traded() -> None:
    adjusted = adjust(bars(100.0, 25.0, 26.0), actions(("2020-01-03", "split", 4.0)), "forward")
    assert adjusted["close"].tolist() == [100.0, 100.0, 104.0]
    assert adjusted["volume"].tolist() == [100.0, 25.0, 25.0]
    assert adjusted["adjustment"].tolist() == adjusted["split_adjustment"].tolist() == [1.0, 4.0, 4.0]


def test_a_dividend_is_the_share_of_the_close_before_it_and_leaves_volume_alone() -> None:
    adjusted = adjust(bars(100.0, 98.0, 99.0), actions(("2020-01-03", "dividend", 2.0)))
    assert adjusted["close"].tolist() == pytest.approx([98.0, 98.0, 99.0])
    assert adjusted["adjustment"].tolist() == pytest.approx([0.98, 1.0, 1.0])
    assert adjusted["split_adjustment"].tolist() == [1.0, 1.0, 1.0]
    assert adjusted["volume"].tolist() == [100.0, 100.0, 100.0]


def test_forward_a_dividend_lifts_what_comes_after_it() -> None:
    adjusted = adjust(bars(100.0, 98.0, 99.0), actions(("2020-01-03", "dividend", 2.0)), "forward")
    assert adjusted["close"].tolist() == pytest.approx([100.0, 100.0, 99.0 / 0.98])


def test_a_dividend_on_the_day_of_a_split_is_paid_on_the_new_shares() -> None:
    # Worth 100 the evening before; the next day two shares of 49 and a dividend of 1 on each.
    both = actions(("2020-01-03", "dividend", 1.0), ("2020-01-03", "split", 2.0))
    adjusted = adjust(bars(100.0, 49.0), both)
    assert adjusted["close"].tolist() == pytest.approx([49.0, 49.0])
    assert adjusted["split_adjustment"].tolist() == [0.5, 1.0]
    assert adjusted["volume"].tolist() == [200.0, 100.0]


def test_a_factor_multiplies_prices_before_it_and_divides_volume_but_is_no_split() -> None:
    adjusted = adjust(bars(100.0, 50.0), actions(("2020-01-03", "factor", 0.49)))
    assert adjusted["close"].tolist() == pytest.approx([49.0, 50.0])
    assert adjusted["volume"].tolist() == pytest.approx([100 / 0.49, 100.0])
    assert adjusted["split_adjustment"].tolist() == [1.0, 1.0]


def test_without_adjustment_bars_are_as_traded() -> None:
    traded = bars(100.0, 50.0)
    found = adjust(traded, actions(("2020-01-03", "split", 2.0)), "none")
    pd.testing.assert_frame_equal(found[traded.columns], traded, check_exact=True)
    assert (found[["adjustment", "split_adjustment"]] == 1).all(axis=None)


def test_an_action_on_a_day_without_bar_counts_from_the_next_one() -> None:
    weekend = adjust(bars(100.0, 101.0, 50.0), actions(("2020-01-04", "split", 2.0)))
    assert weekend["split_adjustment"].tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("day", ["2019-12-31", "2020-01-02", "2020-01-08"])
def test_an_action_up_to_the_first_bar_or_after_the_last_changes_nothing(day: str) -> None:
    traded = bars(100.0, 101.0, 102.0, 103.0)
    given_actions = actions((day, "split", 2.0), (day, "dividend", 1.0), (day, "factor", 0.5))
    for adjustment in ("backward", "forward"):
        found = adjust(traded, given_actions, adjustment)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(found[traded.columns], traded)


def test_several_actions_of_a_day_are_combined() -> None:
    given_actions = actions(
        ("2020-01-03", "split", 2.0), ("2020-01-03", "factor", 0.9), ("2020-01-03", "dividend", 1.0),
        ("2020-01-04", "split", 3.0), ("2020-01-06", "dividend", 0.5), ("2020-01-05", "dividend", 0.25),
    )  # fmt: skip
    split, factor, dividend = effects_per_bar(bars(100.0, 50.0, 17.0), given_actions)
    assert split.tolist() == [1.0, 2.0, 3.0]
    assert factor.tolist() == [1.0, 0.9, 1.0]
    assert dividend.tolist() == [0.0, 1.0, 0.75]


@pytest.mark.parametrize("adjustment", ["backward", "forward", "none"])
def test_no_bars_stay_none_and_keep_their_columns(adjustment: Adjustment) -> None:
    found = adjust(bars(), actions(("2020-01-03", "split", 2.0)), adjustment)
    assert found.empty
    assert list(found.columns) == [*PRICE_COLUMNS, "volume", "adjustment", "split_adjustment"]


# -- by a slower way ---------------------------------------------------------------------------------------


def slow_backward(traded: pd.DataFrame, given_actions: pd.DataFrame) -> pd.DataFrame:
    """Day by day, each action applied to every bar before it; nothing of `prices` is used."""
    found = traded.copy()
    for row in given_actions.itertuples(index=False):
        later = [day for day in traded.index if day >= row.ex_date]
        before = [day for day in traded.index if day < row.ex_date]
        if not later or not before:
            continue
        same_day = [
            other.value for other in given_actions.itertuples(index=False)
            if other.kind == "split" and [day for day in traded.index if day >= other.ex_date][:1] == later[:1]
        ]  # fmt: skip
        for day in before:
            for column in PRICE_COLUMNS:
                if row.kind == "split":
                    found.loc[day, column] /= row.value
                elif row.kind == "factor":
                    found.loc[day, column] *= row.value
                else:
                    found.loc[day, column] *= 1 - row.value * np.prod(same_day) / traded.loc[before[-1], "close"]
            if row.kind == "split":
                found.loc[day, "volume"] *= row.value
            elif row.kind == "factor":
                found.loc[day, "volume"] /= row.value
    return found


@st.composite
def histories(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars on some weekdays, and at most one dividend a day on any days in and around them."""
    days = pd.bdate_range("2020-01-01", periods=30, name="date").as_unit("us")
    kept = sorted(draw(st.sets(st.integers(2, 27), min_size=1, max_size=10)))
    close = np.array([draw(st.floats(50, 200)) for _ in kept])
    traded = pd.DataFrame(
        {"open": close * 0.99, "high": close * 1.02, "low": close * 0.98, "close": close, "volume": 1000.0},
        index=days[kept],
    )
    value = {"split": st.sampled_from([0.1, 0.5, 1.5, 2.0, 4.0]), "dividend": st.floats(0.01, 0.5),
             "factor": st.floats(0.5, 1.0)}  # fmt: skip
    rows: dict[tuple[str, str], tuple[str, str, float]] = {}
    for _ in range(draw(st.integers(0, 5))):
        day, kind = str(draw(st.sampled_from(list(days))).date()), draw(st.sampled_from(sorted(value)))
        rows[day, kind] = (day, kind, draw(value[kind]))
    return traded, actions(*rows.values())


def single_dividends(history: tuple[pd.DataFrame, pd.DataFrame]) -> bool:
    """No two dividends fall on one bar: two such shares of a price add up and do not multiply."""
    traded, given_actions = history
    paid = given_actions.loc[given_actions["kind"] == "dividend", "ex_date"]
    at = traded.index.searchsorted(paid)
    return len(at) == len(set(at))


@settings(max_examples=150, deadline=None)
@given(histories().filter(single_dividends))
def test_adjusted_backward_is_what_a_loop_over_bars_and_actions_gives(
    history: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    traded, given_actions = history
    found, expected = adjust(traded, given_actions), slow_backward(traded, given_actions)
    pd.testing.assert_frame_equal(found[expected.columns], expected, rtol=1e-12)
    assert (found.iloc[-1][traded.columns] == traded.iloc[-1]).all()


@settings(max_examples=150, deadline=None)
@given(histories())
def test_price_over_adjustment_is_as_traded_and_forward_is_backward_times_a_number(
    history: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    traded, given_actions = history
    backward, forward = adjust(traded, given_actions), adjust(traded, given_actions, "forward")
    for found in (backward, forward):
        for column in PRICE_COLUMNS:
            np.testing.assert_allclose(found[column] / found["adjustment"], traded[column], rtol=1e-12)
        validate_bars(found, "AAA")
    np.testing.assert_allclose((forward["close"] / backward["close"]).pct_change().iloc[1:], 0, atol=1e-12)
    assert (forward.iloc[0][traded.columns] == traded.iloc[0]).all()


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(1, 10))
def test_forward_a_later_action_leaves_every_earlier_row_as_it_was(
    history: tuple[pd.DataFrame, pd.DataFrame], known: int
) -> None:
    traded, given_actions = history
    upto = traded.iloc[:known]
    told = given_actions[given_actions["ex_date"] <= upto.index[-1]]
    later = adjust(traded, given_actions, "forward").iloc[:known]
    pd.testing.assert_frame_equal(adjust(upto, told, "forward"), later, check_exact=True)


# -- by what it is for -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(histories().filter(lambda history: (history[1]["kind"] != "factor").all()))
def test_the_return_of_adjusted_closes_is_that_of_a_holder_who_sells_before_each_dividend(
    history: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    # CRSP's convention: a dividend D is a share D / C of the close before it. A holder who puts D into new shares at
    # the price C / s - D, at which the stock would open if nothing else moved it, earns the adjusted return.
    traded, given_actions = history
    split, _, dividend = effects_per_bar(traded, given_actions)
    shares, worth = 1.0, [traded["close"].iloc[0]]
    for at in range(1, len(traded)):
        shares *= split[at]
        opens_at = traded["close"].iloc[at - 1] / split[at] - dividend[at]
        shares += shares * dividend[at] / opens_at
        worth.append(shares * traded["close"].iloc[at])
    adjusted = adjust(traded, given_actions)["close"].to_numpy()
    np.testing.assert_allclose(adjusted / adjusted[0], np.array(worth) / worth[0], rtol=1e-10)


@settings(max_examples=50, deadline=None)
@given(histories().filter(lambda history: (history[1]["kind"] == "split").all()))
def test_splits_change_neither_the_value_traded_nor_returns_within_a_bar(
    history: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    traded, given_actions = history
    found: Any = adjust(traded, given_actions)
    np.testing.assert_allclose(found["close"] * found["volume"], traded["close"] * traded["volume"], rtol=1e-12)
    np.testing.assert_allclose(found["close"] / found["open"], traded["close"] / traded["open"], rtol=1e-12)
