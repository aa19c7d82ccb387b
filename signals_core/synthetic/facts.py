"""Invented filings, insider trades and short interest, each with the moment it could be known, and their truth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT, exchange_calendar, to_sessions
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.schemas import FUNDAMENTAL_VALUES
from signals_core.synthetic.processes import stream

QUARTERS_BEFORE = 8
"""Filed before the first session, so that growth over a year is known from the start."""
RESTATED_SHARE = 0.25
"""Of the quarters; companies restate about one report in ten, tests want to see some in every span."""
_REVENUE, _QUARTERLY_GROWTH, _QUARTERLY_SPREAD = 1e9, 0.02, 0.05
_SHARES = 1e8
_LAG_DAYS = {"Q1": (25, 45), "Q2": (25, 45), "Q3": (25, 45), "Q4": (45, 75)}
"""Days from the quarter's end to its filing: the SEC gives 40 to 45 for a 10-Q and 60 to 90 for a 10-K."""
_RESTATEMENT_DAYS = (60, 300)
_RESTATEMENT_SIZE = (0.05, 0.20)
_TIMES_OF_DAY = tuple(pd.Timedelta(hours=h) for h in (11.5, 17.0, 21.5))
"""UTC: before the open, while the market is open, and after the close in New York."""

_TRADES_A_YEAR = 12
_CODES, _CODE_SHARES = ("P", "S", "A"), (0.3, 0.5, 0.2)
"""Purchases, sales, and grants at no price, which say nothing and must be left out."""
_FILING_DAYS = 2
"""Form 4 is due on the second business day."""
_FORM_4_TIME = pd.Timedelta(hours=23)

_PUBLICATION_SESSIONS = 8
"""FINRA publishes short interest on about the eighth business day after settlement."""


@dataclass(frozen=True)
class FilingTruth:
    """What each quarter's figures were first said to be, and what they were corrected to.

    Both frames have the index `period_end` and the columns `available_at` and `FUNDAMENTAL_VALUES`; a quarter
    that was never corrected has a missing `available_at` in the second.
    """

    first: pd.DataFrame
    restated: pd.DataFrame

    def known(self, moment: pd.Timestamp) -> pd.DataFrame:
        """The figures of every quarter as known at `moment` (tz-naive UTC): index `period_end`."""
        published = self.first["available_at"] <= moment
        corrected = (self.restated["available_at"] <= moment).to_numpy()
        values = list(FUNDAMENTAL_VALUES)
        figures = np.where(corrected[:, None], self.restated[values], self.first[values])
        return pd.DataFrame(figures, index=self.first.index, columns=values)[published]


@dataclass(frozen=True)
class SymbolFacts:
    """The facts of one symbol as a market store gives them, every version a row; none from after the last close."""

    fundamentals: pd.DataFrame
    insider_transactions: pd.DataFrame
    short_interest: pd.DataFrame
    filings: FilingTruth


def make_facts(symbol: str, sessions: pd.DatetimeIndex, seed: int, calendar: str = "XNYS") -> SymbolFacts:
    """Invent what a company of this name would have published by the close of the last session.

    Args:
        symbol: with `seed`, what the figures depend on; a later end only adds rows, another start is another company.
        sessions: of the bars.
        seed: of the market.
        calendar: of the exchange.
    """
    last = close_of_date([sessions[-1]], calendar)[0]
    filings = _filings(symbol, sessions, seed)
    return SymbolFacts(
        _until(_versions(symbol, filings), last),
        _until(_insider_transactions(symbol, sessions, seed), last),
        _until(_short_interest(symbol, sessions, seed, calendar), last),
        filings,
    )


def _until(facts: pd.DataFrame, last: pd.Timestamp) -> pd.DataFrame:
    known = facts[facts["available_at"] <= last]
    return known.sort_values("available_at", kind="stable").reset_index(drop=True)


def _filings(symbol: str, sessions: pd.DatetimeIndex, seed: int) -> FilingTruth:
    ends = pd.date_range(
        sessions[0] - pd.DateOffset(months=3 * QUARTERS_BEFORE + 3), sessions[-1], freq="QE", name="period_end"
    ).as_unit(DATE_UNIT)
    count = len(ends)
    draws = {
        name: stream(seed, symbol, f"filings: {name}").random(count)
        for name in ("lag", "time", "restated", "restatement lag", "restatement time", "size", "sign")
    }
    lags = np.array([_LAG_DAYS[f"Q{quarter}"] for quarter in ends.quarter])
    first = _figures(stream(seed, symbol, "filings: figures").standard_normal((count, 4)))
    first.index = ends
    first.insert(0, "available_at", _on_business_days(ends, _between(lags.T, draws["lag"]), draws["time"]))

    scale = 1 + np.where(draws["sign"] < 0.5, -1, 1) * _between(_RESTATEMENT_SIZE, draws["size"])
    restated = first.copy()
    # A correction of the year's figures: what was earned and what that left in the equity.
    for name in ("revenue", "net_income", "ebitda", "eps"):
        restated[name] = first[name] * scale
    restated["total_equity"] = first["total_equity"] + restated["net_income"] - first["net_income"]
    again = _on_business_days(
        pd.DatetimeIndex(first["available_at"]).normalize(),
        _between(_RESTATEMENT_DAYS, draws["restatement lag"]),
        draws["restatement time"],
    )
    restated["available_at"] = pd.Series(again, index=ends).where(draws["restated"] < RESTATED_SHARE)
    return FilingTruth(first, restated)


def _between(limits: tuple[float, float] | np.ndarray, uniform: np.ndarray) -> np.ndarray:
    low, high = limits
    return np.asarray(low + (np.asarray(high) - low) * uniform)


def _on_business_days(days: pd.DatetimeIndex, lag_days: np.ndarray, time_of_day: np.ndarray) -> pd.DatetimeIndex:
    """A moment `lag_days` after each day, moved off the weekend, at one of `_TIMES_OF_DAY`."""
    filed = np.busday_offset(
        (days + pd.to_timedelta(np.round(lag_days), unit="D")).to_numpy().astype("M8[D]"), 0, "forward"
    )
    times = pd.to_timedelta(np.array(_TIMES_OF_DAY)[(time_of_day * len(_TIMES_OF_DAY)).astype(int)])
    return (pd.DatetimeIndex(filed) + times).as_unit(DATE_UNIT)


def _figures(shocks: np.ndarray) -> pd.DataFrame:
    """Quarterly figures (n, `FUNDAMENTAL_VALUES`) of a company that grows by a random walk; all positive but income."""
    revenue = _REVENUE * np.exp(np.cumsum(_QUARTERLY_GROWTH + _QUARTERLY_SPREAD * shocks[:, 0]))
    net_income = revenue * (0.08 + 0.05 * shocks[:, 1])
    equity = 2 * _REVENUE * np.exp(np.cumsum(_QUARTERLY_GROWTH + _QUARTERLY_SPREAD / 2 * shocks[:, 2]))
    current_liabilities = 0.6 * revenue
    columns = {
        "revenue": revenue,
        "net_income": net_income,
        "ebitda": net_income + 0.12 * revenue,
        "dividends_per_share": np.full(len(shocks), 0.25),
        "eps": net_income / _SHARES,
        "total_equity": equity,
        "total_debt": 0.7 * equity,
        "cash": 0.3 * equity,
        "current_assets": current_liabilities * np.exp(0.4 + 0.1 * shocks[:, 3]),
        "current_liabilities": current_liabilities,
        "shares_outstanding": np.full(len(shocks), _SHARES),
    }
    return pd.DataFrame(columns)[list(FUNDAMENTAL_VALUES)]


def _versions(symbol: str, filings: FilingTruth) -> pd.DataFrame:
    """The rows of the store: every quarter as first filed, and once more for each correction."""
    parts: Mapping[str, pd.DataFrame] = {"10": filings.first, "10A": filings.restated.dropna(subset="available_at")}
    rows = [
        part.reset_index().assign(
            fiscal_period=[f"Q{end.quarter}" for end in part.index],
            document=[f"{symbol}-{form}-{end:%Y%m%d}" for end in part.index],
        )
        for form, part in parts.items()
    ]
    columns = ["available_at", "period_end", "fiscal_period", "document", *FUNDAMENTAL_VALUES]
    return pd.concat(rows)[columns]


def _insider_transactions(symbol: str, sessions: pd.DatetimeIndex, seed: int) -> pd.DataFrame:
    days, purpose = len(sessions), "insider: {}".format
    happens = stream(seed, symbol, purpose("days")).random(days) < _TRADES_A_YEAR / 252
    code = np.searchsorted(np.cumsum(_CODE_SHARES), stream(seed, symbol, purpose("codes")).random(days), side="right")
    size = np.round(1_000 * np.exp(stream(seed, symbol, purpose("sizes")).standard_normal(days)))
    price = 100 * np.exp(0.2 * stream(seed, symbol, purpose("prices")).standard_normal(days))
    delay = stream(seed, symbol, purpose("delays")).integers(0, _FILING_DAYS + 1, days)
    codes = np.array(_CODES)[np.minimum(code, len(_CODES) - 1)]
    filed = np.busday_offset(sessions.to_numpy().astype("M8[D]"), delay, "forward")
    frame = pd.DataFrame(
        {
            "available_at": (pd.DatetimeIndex(filed) + _FORM_4_TIME).as_unit(DATE_UNIT),
            "transaction_date": sessions,
            "code": codes,
            "shares": np.where(codes == "S", -size, size),
            "price": np.where(codes == "A", 0.0, price),
            "document": [f"{symbol}-4-{day:%Y%m%d}" for day in sessions],
            "insider": "Invented Insider",
            "line": 0,
        }
    )
    return frame[happens]


def _short_interest(symbol: str, sessions: pd.DatetimeIndex, seed: int, calendar: str) -> pd.DataFrame:
    """Settled on the last session by the 15th and by the end of each month; `available_at` is a session's close."""
    months = pd.period_range(sessions[0], sessions[-1], freq="M")
    targets = [day for m in months for day in (m.start_time + pd.Timedelta(days=14), m.end_time.normalize())]
    every = to_sessions(exchange_calendar(calendar).sessions)
    position = every.searchsorted(pd.DatetimeIndex(targets).as_unit(DATE_UNIT), side="right") - 1
    settled = every[position]
    # One session later than published: the figures come out after that session's close.
    available = close_of_date(every[position + _PUBLICATION_SESSIONS], calendar, lag_sessions=1)
    level = np.cumsum(0.1 * stream(seed, symbol, "short interest").standard_normal(len(settled)))
    frame = pd.DataFrame(
        {
            "available_at": available,
            "settlement_date": settled,
            "document": [f"{symbol}-SI-{day:%Y%m%d}" for day in settled],
            "shares_short": np.round(0.03 * _SHARES * np.exp(level)),
            "avg_daily_volume": 1e6,
            "shares_float": 0.9 * _SHARES,
        }
    )
    return frame
