"""The price panel: how bars are laid out, and what is refused by name."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError
from signals_core.execution.costs import CostModel
from signals_core.settings_trading import SizingSettings, TradingSettings
from signals_core.strategy.history import MarketHistory
from signals_core.strategy.panel import PricePanel
from signals_core.strategy.portfolio import Rules
from signals_core.strategy.sizing import SizingRules
from tests.core.strategy.markets import eventful_bars, random_bars, sessions


def action(day: pd.Timestamp, kind: str, value: float) -> pd.DataFrame:
    return pd.DataFrame({"ex_date": [day], "kind": [kind], "value": [value]})


def test_symbols_stand_in_alphabetical_order_and_missing_bars_are_missing():
    bars = random_bars(3, 10, 0)
    panel = PricePanel.from_bars({"S02": bars["S02"], "S00": bars["S00"].drop(sessions(10)[4]), "S01": bars["S01"][6:]})
    assert panel.symbols == ("S00", "S01", "S02")
    assert np.isnan(panel.close[4]).tolist() == [True, True, False]
    assert np.isnan(panel.open[:6, 1]).all()
    assert panel.mark[4, 0] == bars["S00"]["close"].iloc[3]
    assert np.isnan(panel.mark[:6, 1]).all()
    assert panel.elapsed_days.tolist()[:5] == [0, 1, 1, 3, 1]  # 2019-01-02 was a Wednesday


def test_an_action_on_a_day_without_a_bar_counts_from_the_next_one():
    bars, day = random_bars(1, 10, 0), sessions(10)[4]
    bars["S00"] = bars["S00"].drop(day)
    panel = PricePanel.from_bars(bars, {"S00": action(day, "split", 2.0)}, sessions=sessions(10))
    assert panel.split[:, 0].tolist() == [1] * 5 + [2] + [1] * 4
    bars["S00"].loc[sessions(10)[5], "close"] = np.nan  # an open, and no close
    panel = PricePanel.from_bars(bars, {"S00": action(day, "dividend", 0.5)}, sessions=sessions(10))
    assert panel.dividend[:, 0].tolist() == [0] * 6 + [0.5] + [0] * 3


def test_a_factor_is_counted_in_shares_and_a_reinvested_dividend_too():
    bars, day = random_bars(1, 10, 0), sessions(10)[4]
    assert PricePanel.from_bars(bars, {"S00": action(day, "factor", 0.8)}).split[4, 0] == pytest.approx(1.25)
    panel = PricePanel.from_bars(bars, {"S00": action(day, "dividend", 2.0)}, dividends="reinvested")
    assert panel.split[4, 0] == pytest.approx(1 / (1 - 2 / bars["S00"]["close"].iloc[3]))
    assert not panel.dividend.any()


def test_membership_holds_from_its_row_on_and_symbols_without_a_column_are_in():
    members = pd.DataFrame({"S00": [True, False]}, [pd.Timestamp("2019-01-05"), pd.Timestamp("2019-01-09")])
    panel = PricePanel.from_bars(random_bars(2, 10, 0), members=members)
    assert panel.member[:, 0].tolist() == [False] * 3 + [True] * 2 + [False] * 5
    assert panel.member[:, 1].all()


def test_a_stretch_of_it_is_the_same_sessions():
    bars, actions, members = eventful_bars(3, 60, 1)
    panel = PricePanel.from_bars(bars, actions, members)
    part = panel.between(date(2019, 2, 1), date(2019, 3, 1))
    assert (part.dates[0], part.dates[-1]) == (pd.Timestamp("2019-02-01"), pd.Timestamp("2019-02-28"))
    rows = slice(panel.dates.get_loc(part.dates[0]), panel.dates.get_loc(part.dates[-1]) + 1)
    assert np.array_equal(part.close, panel.close[rows], equal_nan=True)
    assert part.elapsed_days[0] == 0


def test_history_before_a_day_has_nothing_of_it_or_later():
    bars, actions, members = eventful_bars(4, 60, 2)
    end = bars["S00"].index[-1].date()
    history = MarketHistory(bars, actions, members, {"S00": (end, -0.5)})
    day = sessions(60)[30]
    before = history.before(day.date())
    assert max(frame.index[-1] for frame in before.frames.values()) < day
    assert all((rows["ex_date"] < day).all() for rows in before.actions.values())
    assert (before.members.index < day).all()
    assert before.delistings == {}
    whole, part = history.panel, before.panel
    assert np.array_equal(part.mark, whole.mark[: len(part.dates)], equal_nan=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"close": np.full((10, 2), -1.0)}, "S00 at 2019-01-02: close is not a positive number"),
        ({"open": np.full((10, 2), np.inf)}, "S00 at 2019-01-02: open is not a positive number"),
        ({"split": np.zeros((10, 2))}, "split is not a positive number"),
        ({"dividend": np.full((10, 2), np.nan)}, "a split or dividend is not a number"),
        ({"close": np.full((10, 2), np.nan), "dividend": np.ones((10, 2))}, "without a close"),
        ({"member": np.ones((3, 2), bool)}, r"member has the shape \(3, 2\), not \(10, 2\)"),
        ({"symbols": ("S01", "S00")}, "alphabetical"),
        ({"dates": sessions(10)[::-1]}, "dates are not in order"),
    ],
)
def test_arrays_that_cannot_be_are_refused(change, words):
    panel = PricePanel.from_bars(random_bars(2, 10, 0))
    with pytest.raises(DataError, match=words):
        replace(panel, **change)


def test_bars_that_cannot_be_laid_out_are_refused():
    bars = random_bars(2, 10, 0)
    with pytest.raises(DataError, match="no symbols"):
        PricePanel.from_bars({})
    with pytest.raises(DataError, match="S00 has a bar on 2019-01-15, which is not among the sessions"):
        PricePanel.from_bars(bars, sessions=sessions(9))
    with pytest.raises(DataError, match="XXX has no bars"):
        PricePanel.from_bars(bars, delistings={"XXX": (date(2019, 1, 4), 0.0)})
    with pytest.raises(DataError, match="S00 has bars after its last session"):
        PricePanel.from_bars(bars, delistings={"S00": (date(2019, 1, 4), 0.0)})
    with pytest.raises(DataError, match="lose more than everything"):
        PricePanel.from_bars(bars, delistings={"S00": (date(2019, 1, 15), -1.5)})


def test_rules_are_taken_from_the_settings():
    trading, sizing = TradingSettings(cash_bps_per_year=300), SizingSettings(max_weight=0.2, target_volatility=0.1)
    expected = Rules(CostModel(1, 4, 50), cash_bps_per_year=300, max_weight=0.2, min_trade_weight=0.005)
    assert Rules.from_settings(trading, sizing) == expected
    assert Rules.from_settings(trading).max_weight is None
    assert SizingRules.from_settings(sizing) == SizingRules(0.25, 0.2, 0.3, 0.1, 1.0)
