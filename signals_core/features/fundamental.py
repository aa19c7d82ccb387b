"""Fundamental features: filings as known at each close, against that day's price.

Flows are sums of the last four quarters known; growth compares a quarter with the same quarter a year
before, each in the version known at the time.
"""

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs, split_level, unadjusted_close
from signals_core.features.point_in_time import as_of_join, known_states, session_closes

_QUARTERS = 4
_LONGEST_THREE_QUARTERS_DAYS = 300
"""Four consecutive quarters end within this span, also in 53-week fiscal years; otherwise one is missing."""
_SAME_QUARTER_DAYS = (350, 380)


def _feature(name: str, formula: str, unit: str) -> Feature:
    return Feature(name, "fundamental", formula, unit, 0, ("bars", "fundamentals"))


FEATURES = (
    _feature("pe_ratio", "market value / net income of four quarters; missing unless positive", "ratio"),
    _feature("pb_ratio", "market value / equity; missing unless positive", "ratio"),
    _feature("ps_ratio", "market value / revenue of four quarters", "ratio"),
    _feature(
        "ev_to_ebitda",
        "(market value + debt - cash) / ebitda of four quarters; missing unless positive",
        "ratio",
    ),
    _feature("earnings_yield", "net income of four quarters / market value", "ratio"),
    _feature("book_to_price", "equity / market value", "ratio"),
    _feature("sales_to_price", "revenue of four quarters / market value", "ratio"),
    _feature("ebitda_to_ev", "ebitda of four quarters / (market value + debt - cash)", "ratio"),
    _feature("roe", "net income of four quarters / equity; missing unless equity is positive", "ratio"),
    _feature("current_ratio", "current assets / current liabilities", "ratio"),
    _feature("debt_to_equity", "debt / equity; missing unless equity is positive", "ratio"),
    _feature("revenue_growth_yoy", "quarter's revenue / same quarter a year before - 1", "ratio"),
    _feature("earnings_growth_yoy", "change of the quarter's net income / |a year before|", "ratio"),
    _feature("dividend_yield", "dividends per share of four quarters / close as traded", "ratio"),
    _feature("days_since_filing", "calendar days from the latest filing to the close", "days"),
)


class FundamentalFeatureCalculator:
    """Valuation, quality and growth from filings."""

    needs: tuple[Need, ...] = ("bars", "fundamentals")

    def __init__(self, calendar: str = "XNYS") -> None:
        self._calendar = calendar

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where nothing was filed yet."""
        bars = inputs.bars
        names = [feature.name for feature in FEATURES]
        if inputs.fundamentals is None or inputs.fundamentals.empty:
            return pd.DataFrame(np.nan, index=bars.index, columns=names)
        closes = session_closes(self._calendar, pd.DatetimeIndex(bars.index))
        quarters = in_first_shares(quarters_of(inputs.fundamentals), bars)
        known = as_of_join(closes, known_states(quarters, "period_end", _describe)).set_index(bars.index)
        # The price of as many shares as one of the first bar has become.
        price = unadjusted_close(bars) * split_level(bars, pd.DatetimeIndex(bars.index))
        value = price * known["shares_outstanding"]
        enterprise = value + known["total_debt"] - known["cash"]
        equity = known["total_equity"].where(known["total_equity"] > 0)
        filed = pd.Series(closes, index=bars.index) - known["filed"]
        columns = {
            "pe_ratio": value / known["net_income_ttm"].where(known["net_income_ttm"] > 0),
            "pb_ratio": value / equity,
            "ps_ratio": value / known["revenue_ttm"].where(known["revenue_ttm"] > 0),
            "ev_to_ebitda": enterprise / known["ebitda_ttm"].where(known["ebitda_ttm"] > 0),
            "earnings_yield": known["net_income_ttm"] / value,
            "book_to_price": known["total_equity"] / value,
            "sales_to_price": known["revenue_ttm"] / value,
            "ebitda_to_ev": known["ebitda_ttm"] / enterprise.where(enterprise > 0),
            "roe": known["net_income_ttm"] / equity,
            "current_ratio": known["current_assets"] / known["current_liabilities"],
            "debt_to_equity": known["total_debt"] / equity,
            "revenue_growth_yoy": known["revenue_growth"],
            "earnings_growth_yoy": known["net_income_growth"],
            "dividend_yield": known["dividends_per_share_ttm"] / price,
            "days_since_filing": filed / pd.Timedelta(days=1),
        }
        frame = pd.DataFrame(columns, index=bars.index)[names]
        return frame.astype("float64").replace([np.inf, -np.inf], np.nan)


def quarters_of(fundamentals: pd.DataFrame) -> pd.DataFrame:
    """Quarters only: a source may give whole years as rows of their own."""
    if "fiscal_period" not in fundamentals:
        return fundamentals
    return fundamentals[fundamentals["fiscal_period"] != "FY"]


def in_first_shares(quarters: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """Numbers of shares, and figures a share, in shares of the first bar: a filing counts in shares of its day."""
    level = split_level(bars, quarters["available_at"])
    per_share = {name: quarters[name] * level for name in ("dividends_per_share", "eps") if name in quarters}
    return quarters.assign(shares_outstanding=quarters["shares_outstanding"] / level, **per_share)


def _describe(quarters: pd.DataFrame) -> dict[str, object]:
    latest = quarters.iloc[-1]
    year = quarters.tail(_QUARTERS)
    span = (year["period_end"].iloc[-1] - year["period_end"].iloc[0]).days
    complete = len(year) == _QUARTERS and span <= _LONGEST_THREE_QUARTERS_DAYS
    state: dict[str, object] = {"filed": quarters["available_at"].max()}
    for name in ("total_equity", "total_debt", "cash", "current_assets", "current_liabilities", "shares_outstanding"):
        state[name] = latest[name]
    for name in ("revenue", "net_income", "ebitda", "dividends_per_share"):
        state[f"{name}_ttm"] = year[name].sum(skipna=False) if complete else np.nan
    age = (latest["period_end"] - quarters["period_end"]).dt.days
    before = quarters[age.between(*_SAME_QUARTER_DAYS)]
    for name in ("revenue", "net_income"):
        base = before[name].iloc[-1] if len(before) else np.nan
        state[f"{name}_growth"] = (latest[name] - base) / abs(base) if base else np.nan
    return state
