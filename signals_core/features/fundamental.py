"""Fundamental features: filings as known at each close, against that day's price and against the sector.

Flows are sums of the last four quarters known; growth compares a quarter with the same quarter a year
before, each in the version known at the time.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes
from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs, floats_of, split_level, unadjusted_close
from signals_core.features.point_in_time import NOT_KNOWN, KnownVersions, as_of_positions, known_versions, take_known
from signals_core.features.sectors import SECTORS, sector_of

_QUARTERS = 4
_LONGEST_THREE_QUARTERS = np.timedelta64(300, "D")
"""Four consecutive quarters end within this span, also in 53-week fiscal years; otherwise one is missing."""
_SAME_QUARTER = (np.timedelta64(350, "D"), np.timedelta64(380, "D"))
_DAY = np.timedelta64(1, "D")

_FLOWS = ("revenue", "net_income", "ebitda", "dividends_per_share")
_GROWING = ("revenue", "net_income")
_BALANCES = ("total_equity", "total_debt", "cash", "current_assets", "current_liabilities", "shares_outstanding")
_READ = (*_FLOWS, *_BALANCES)

MULTIPLES = ("pe_ratio", "pb_ratio", "ps_ratio", "ev_to_ebitda")
YIELDS = ("earnings_yield", "book_to_price", "sales_to_price", "ebitda_to_ev")
"""Defined also where a multiple is not, and so comparable across all symbols."""
RATIOS = MULTIPLES + YIELDS

_FILED = "fewer than four consecutive quarters are known"
_SECTOR = "fewer than three symbols of the sector have it that day, or the symbol has none"


def _feature(name: str, formula: str, unit: str, missing: str) -> Feature:
    return Feature(name, "fundamental", formula, unit, 0, ("bars", "fundamentals"), missing=missing)


def _to_sector(name: str, formula: str) -> Feature:
    needs: tuple[Need, ...] = ("bars", "fundamentals", "sector_fundamentals")
    return Feature(name, "fundamental", formula, "ratio", 0, needs, missing=_SECTOR)


def _dummy(sector: str) -> Feature:
    return Feature(
        f"sector_{sector}",
        "fundamental",
        f"1 if the symbol's sector that day is {sector.replace('_', ' ')}, else 0",
        "0 or 1",
        0,
        ("bars", "sectors"),
        source="GICS",
        missing="the symbol is in no row of universe.sectors by then",
    )


_COMPARED = (
    *(_to_sector(f"{name}_to_sector", f"{name} / the sector's median that day") for name in MULTIPLES),
    *(_to_sector(f"{name}_minus_sector", f"{name} - the sector's median that day") for name in YIELDS),
)
FEATURES = (
    _feature("pe_ratio", "market value / net income of four quarters", "ratio", f"income is not positive; {_FILED}"),
    _feature("pb_ratio", "market value / equity", "ratio", "equity is not positive"),
    _feature("ps_ratio", "market value / revenue of four quarters", "ratio", f"revenue is not positive; {_FILED}"),
    _feature(
        "ev_to_ebitda",
        "(market value + debt - cash) / ebitda of four quarters",
        "ratio",
        f"ebitda is not positive; {_FILED}",
    ),
    _feature("earnings_yield", "net income of four quarters / market value", "ratio", _FILED),
    _feature("book_to_price", "equity / market value", "ratio", "no filing states it"),
    _feature("sales_to_price", "revenue of four quarters / market value", "ratio", _FILED),
    _feature(
        "ebitda_to_ev",
        "ebitda of four quarters / (market value + debt - cash)",
        "ratio",
        f"the denominator is not positive; {_FILED}",
    ),
    _feature("roe", "net income of four quarters / equity", "ratio", f"equity is not positive; {_FILED}"),
    _feature(
        "current_ratio",
        "current assets / current liabilities",
        "ratio",
        "no filing states them, or liabilities are zero",
    ),
    _feature("debt_to_equity", "debt / equity", "ratio", "equity is not positive"),
    _feature(
        "revenue_growth_yoy",
        "(quarter's revenue - same quarter's a year before) / |same quarter's a year before|",
        "ratio",
        "the same quarter of the year before is not known, or was zero",
    ),
    _feature(
        "earnings_growth_yoy",
        "(quarter's net income - same quarter's a year before) / |same quarter's a year before|",
        "ratio",
        "the same quarter of the year before is not known, or was zero",
    ),
    _feature("dividend_yield", "dividends per share of four quarters / close as traded", "ratio", _FILED),
    _feature("days_since_filing", "calendar days from the latest filing to the close", "days", "nothing is filed"),
    *_COMPARED,
    *(_dummy(sector) for sector in SECTORS),
)


_ORDER = [feature.name for feature in FEATURES]
_NAMES = pd.Index(_ORDER)  # made once: an index of texts is slow to make


class FundamentalFeatureCalculator:
    """Valuation, quality and growth from filings; the sector."""

    features = FEATURES
    needs: tuple[Need, ...] = ("bars", "fundamentals", "sector_fundamentals", "sectors")
    lookback = None

    def __init__(self, calendar: str = "XNYS", max_age: timedelta | None = None) -> None:
        """`max_age`: after that long without a filing nothing is known any more but the days since it."""
        self._calendar = calendar
        self._max_age = max_age

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where nothing was filed yet."""
        columns = self._ratios(inputs)
        compared = _to_median(columns, inputs)
        sector = _dummies(inputs)
        index = inputs.bars.index
        nothing = np.full(len(index), np.nan)
        known = columns | compared | sector
        values = np.array([known.get(name, nothing) for name in _ORDER])
        values[~np.isfinite(values)] = np.nan
        return pd.DataFrame(values.T, index=index, columns=_NAMES)

    def ratios(self, inputs: FeatureInputs) -> pd.DataFrame:
        """The columns `RATIOS` alone, one row a bar: what a sector's median is taken of."""
        columns, index = self._ratios(inputs), inputs.bars.index
        nothing = np.full(len(index), np.nan)
        values = np.array([columns.get(name, nothing) for name in RATIOS])
        values[~np.isfinite(values)] = np.nan
        return pd.DataFrame(values.T, index=index, columns=list(RATIOS))

    def _ratios(self, inputs: FeatureInputs) -> dict[str, np.ndarray]:
        if inputs.fundamentals is None or inputs.fundamentals.empty:
            return {}
        bars = inputs.bars
        index = pd.DatetimeIndex(bars.index)
        closes = session_closes(self._calendar, index)
        states, moments = _states(Quarters.of(inputs.fundamentals, bars))
        table = np.array(list(states.values())).T
        known = dict(
            zip(states, take_known(table, as_of_positions(closes, moments, max_age=self._max_age)).T, strict=True)
        )
        last = as_of_positions(closes, moments)
        filed = np.where(last == NOT_KNOWN, np.datetime64("NaT"), moments[np.maximum(last, 0)])
        # The price of as many shares as one of the first bar has become.
        price = unadjusted_close(bars) * split_level(bars, index)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _valuation(known, price) | {"days_since_filing": (closes.to_numpy() - filed) / _DAY}


@dataclass(frozen=True)
class Quarters:
    """Every version of every quarter (n,), with shares, and figures a share, in shares of the first bar."""

    available_at: np.ndarray
    period_end: np.ndarray
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, fundamentals: pd.DataFrame, bars: pd.DataFrame) -> "Quarters":
        """From filings, which count in shares of their day; a source may give whole years as rows of their own."""
        if "fiscal_period" in fundamentals:
            fundamentals = fundamentals[(fundamentals["fiscal_period"] != "FY").to_numpy()]
        available_at = fundamentals["available_at"].to_numpy()
        level = split_level(bars, available_at)
        values = dict(zip(_READ, floats_of(fundamentals, _READ), strict=True))
        values["shares_outstanding"] = values["shares_outstanding"] / level
        values["dividends_per_share"] = values["dividends_per_share"] * level
        return cls(available_at, fundamentals["period_end"].to_numpy(), values)


def known_shares(
    fundamentals: pd.DataFrame, bars: pd.DataFrame, closes: pd.DatetimeIndex, max_age: timedelta | None = None
) -> np.ndarray:
    """Shares outstanding as last filed at each close (m,), in shares of the first bar.

    NaN before the first filing, and once the last one is older than `max_age`.
    """
    quarters = Quarters.of(fundamentals, bars)
    known = known_versions(quarters.available_at, quarters.period_end)
    shares = known.take(quarters.values["shares_outstanding"], known.latest(1))
    return take_known(shares, as_of_positions(closes, known.moments, max_age=max_age))[:, 0]


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _valuation(known: dict[str, np.ndarray], price: np.ndarray) -> dict[str, np.ndarray]:
    value = price * known["shares_outstanding"]
    enterprise = value + known["total_debt"] - known["cash"]
    equity = _positive(known["total_equity"])
    return {
        "pe_ratio": value / _positive(known["net_income_ttm"]),
        "pb_ratio": value / equity,
        "ps_ratio": value / _positive(known["revenue_ttm"]),
        "ev_to_ebitda": enterprise / _positive(known["ebitda_ttm"]),
        "earnings_yield": known["net_income_ttm"] / value,
        "book_to_price": known["total_equity"] / value,
        "sales_to_price": known["revenue_ttm"] / value,
        "ebitda_to_ev": known["ebitda_ttm"] / _positive(enterprise),
        "roe": known["net_income_ttm"] / equity,
        "current_ratio": known["current_assets"] / known["current_liabilities"],
        "debt_to_equity": known["total_debt"] / equity,
        "revenue_growth_yoy": known["revenue_growth"],
        "earnings_growth_yoy": known["net_income_growth"],
        "dividend_yield": known["dividends_per_share_ttm"] / price,
    }


def _states(quarters: Quarters) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What was known after each publication (m,) by name, and the m moments."""
    known = known_versions(quarters.available_at, quarters.period_end)
    year = known.latest(_QUARTERS)
    latest = year[:, 0]
    ends = quarters.period_end[known.order]
    complete = (year != NOT_KNOWN).all(axis=1) & (ends[latest] - ends[year[:, -1]] <= _LONGEST_THREE_QUARTERS)
    states = {name: known.take(quarters.values[name], latest) for name in _BALANCES}
    for name in _FLOWS:
        states[f"{name}_ttm"] = np.where(complete, known.take(quarters.values[name], year).sum(axis=1), np.nan)
    before = _year_before(known, ends[latest])
    for name in _GROWING:
        now, base = known.take(quarters.values[name], latest), known.take(quarters.values[name], before)
        with np.errstate(divide="ignore", invalid="ignore"):
            states[f"{name}_growth"] = (now - base) / np.abs(base)
    return states, known.moments


def _year_before(known: KnownVersions, ends: np.ndarray) -> np.ndarray:
    """The row of the same quarter a year before the one that ends at `ends` (m,), as known at each moment."""
    age = ends[:, None] - known.periods[None, :]
    fits = (age >= _SAME_QUARTER[0]) & (age <= _SAME_QUARTER[1]) & (known.rows != NOT_KNOWN)
    at = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)  # the latest that fits
    row = np.take_along_axis(known.rows, at[:, None], axis=1)[:, 0]
    return np.where(fits.any(axis=1), row, NOT_KNOWN)


def _to_median(columns: dict[str, np.ndarray], inputs: FeatureInputs) -> dict[str, np.ndarray]:
    if inputs.sector_fundamentals is None or inputs.sector_fundamentals.empty or not columns:
        return {}
    medians = inputs.sector_fundamentals.reindex(inputs.bars.index)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {f"{name}_to_sector": columns[name] / medians[name].to_numpy() for name in MULTIPLES}
    return ratios | {f"{name}_minus_sector": columns[name] - medians[name].to_numpy() for name in YIELDS}


def _dummies(inputs: FeatureInputs) -> dict[str, np.ndarray]:
    if inputs.sectors is None or inputs.sectors.empty:
        return {}
    number = sector_of(inputs.sectors, pd.DatetimeIndex(inputs.bars.index))
    return {
        f"sector_{name}": np.where(number < 0, np.nan, (number == at).astype("float64"))
        for at, name in enumerate(SECTORS)
    }
