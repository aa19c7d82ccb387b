"""Alternative features: open-market insider trades and short interest, as published."""

from datetime import timedelta

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes
from signals_core.features.catalog import Feature, Need
from signals_core.features.fundamental import known_shares
from signals_core.features.inputs import FeatureInputs, split_level, unadjusted_close
from signals_core.features.point_in_time import as_of_positions, known_versions, take_known, trailing_sum

_INSIDER_DAYS = 90
PURCHASE, SALE = "P", "S"
"""SEC Form 4 codes of open-market trades; grants, gifts and exercises say nothing about an opinion."""


def _feature(name: str, formula: str, unit: str, *needs: Need) -> Feature:
    source = "SEC Form 4, codes P and S" if "insider_transactions" in needs else "FINRA consolidated short interest"
    return Feature(name, "alternative", formula, unit, 0, ("bars", *needs), source, "nothing is published yet")


FEATURES = (
    _feature(
        "insider_net_value_90d_to_mcap",
        "value bought - sold, filed in 90 days / market value",
        "ratio",
        "insider_transactions",
        "fundamentals",
    ),
    _feature("insider_buy_count_90d", "purchases filed in 90 days", "count", "insider_transactions"),
    _feature(
        "insider_shares_90d_to_so",
        "shares bought - sold, filed in 90 days / shares outstanding",
        "ratio",
        "insider_transactions",
        "fundamentals",
    ),
    _feature("insider_value_90d", "value bought - sold, filed in 90 days", "currency", "insider_transactions"),
    _feature("short_interest_to_float", "shares short / float as published", "ratio", "short_interest"),
    _feature("days_to_cover", "shares short / average daily volume as published", "days", "short_interest"),
    _feature("short_interest_change", "shares short / previous settlement's - 1", "ratio", "short_interest"),
)


class AlternativeFeatureCalculator:
    """Insider trades and short interest."""

    features = FEATURES
    needs: tuple[Need, ...] = ("bars", "fundamentals", "insider_transactions", "short_interest")
    lookback = None

    def __init__(self, calendar: str = "XNYS", max_age: timedelta | None = None) -> None:
        """`max_age`: a report of short interest older than that is not known any more."""
        self._calendar = calendar
        self._max_age = max_age

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where nothing was published yet."""
        index = inputs.bars.index
        closes = session_closes(self._calendar, pd.DatetimeIndex(index))
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = _insider(inputs, closes) | _short_interest(inputs, closes, self._max_age)
        nothing = np.full(len(index), np.nan)
        values = np.array([columns.get(feature.name, nothing) for feature in FEATURES]).T
        values[~np.isfinite(values)] = np.nan
        return pd.DataFrame(values, index=index, columns=[feature.name for feature in FEATURES])


def _insider(inputs: FeatureInputs, closes: pd.DatetimeIndex) -> dict[str, np.ndarray]:
    facts, bars = inputs.insider_transactions, inputs.bars
    if facts is None or facts.empty:
        return {}
    first_filing = facts["available_at"].min()
    trades = facts[facts["code"].isin([PURCHASE, SALE])].sort_values("available_at", kind="stable")
    counted = _first_filed(trades)
    moments, original = trades["available_at"].to_numpy(), (trades["available_at"] == counted).to_numpy()
    shares = trades["shares"].to_numpy(dtype="float64")
    amounts = {
        "value": _corrections(trades, shares * trades["price"].to_numpy(dtype="float64")),
        "shares": shares / split_level(bars, counted) * original,
        "buys": (trades["code"] == PURCHASE).to_numpy() * original,
    }
    silent = closes < first_filing  # before, nothing is known; after, no trade is a known zero
    sums = {
        name: np.where(silent, np.nan, np.nan_to_num(trailing_sum(closes, moments, values, _INSIDER_DAYS, counted)))
        for name, values in amounts.items()
    }
    columns = {"insider_value_90d": sums["value"], "insider_buy_count_90d": sums["buys"]}
    if inputs.fundamentals is not None and not inputs.fundamentals.empty:
        outstanding = known_shares(inputs.fundamentals, bars, closes)
        level = split_level(bars, pd.DatetimeIndex(bars.index))
        columns["insider_shares_90d_to_so"] = sums["shares"] / outstanding
        columns["insider_net_value_90d_to_mcap"] = sums["value"] / (outstanding * level * unadjusted_close(bars))
    return columns


_TRANSACTION = ["document", "insider", "transaction_date", "code", "shares", "line"]
"""What a transaction is, whatever is said of it later."""


def _first_filed(trades: pd.DataFrame) -> pd.Series:
    """When each row's transaction was first filed: its window begins there, also for a correction."""
    if not set(_TRANSACTION) <= set(trades.columns):
        return trades["available_at"]
    return trades.groupby(_TRANSACTION, dropna=False)["available_at"].transform("min")


def _corrections(trades: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """The first value of each transaction, and of each correction the difference to the version before it."""
    if not set(_TRANSACTION) <= set(trades.columns) or not trades.duplicated(_TRANSACTION).any():
        return values
    known = trades.assign(value=np.nan_to_num(values))
    before = known.groupby(_TRANSACTION, dropna=False)["value"].shift(1)
    return (known["value"] - before.fillna(0.0)).to_numpy()


def _short_interest(
    inputs: FeatureInputs, closes: pd.DatetimeIndex, max_age: timedelta | None
) -> dict[str, np.ndarray]:
    reports = inputs.short_interest
    if reports is None or reports.empty:
        return {}
    # A split between two settlements is no change of opinion: counted in shares of the first bar.
    level = split_level(inputs.bars, reports["settlement_date"])
    in_shares = {n: reports[n] / level for n in ("shares_short", "avg_daily_volume", "shares_float") if n in reports}
    known = known_versions(reports.assign(**in_shares), "settlement_date")
    two = known.latest(2)
    latest, previous = two[:, 0], two[:, 1]
    short = known.values("shares_short", latest)
    states = np.array(
        [
            short / known.values("shares_float", latest),
            short / known.values("avg_daily_volume", latest),
            short / known.values("shares_short", previous) - 1,
        ]
    )
    joined = take_known(states.T, as_of_positions(closes, known.moments, max_age=max_age))
    return dict(zip(("short_interest_to_float", "days_to_cover", "short_interest_change"), joined.T, strict=True))
