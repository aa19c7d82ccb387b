"""Alternative features: open-market insider trades and short interest, as published."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes
from signals_core.features.catalog import Feature, Need
from signals_core.features.fundamental import known_shares
from signals_core.features.inputs import FeatureInputs, floats_of, split_level, unadjusted_close
from signals_core.features.point_in_time import as_of_positions, known_versions, take_known, trailing_sum

_INSIDER_DAYS = 90
PURCHASE, SALE = "P", "S"
"""SEC Form 4 codes of open-market trades; grants, gifts and exercises say nothing about an opinion."""


_UNPUBLISHED = "nothing is published yet"
_NO_SHARES = "nothing is published yet, or no filing states the shares outstanding"


def _feature(name: str, formula: str, unit: str, *needs: Need, missing: str = _UNPUBLISHED) -> Feature:
    source = "SEC Form 4, codes P and S" if "insider_transactions" in needs else "FINRA consolidated short interest"
    return Feature(name, "alternative", formula, unit, 0, ("bars", *needs), source, missing)


FEATURES = (
    _feature(
        "insider_net_value_90d_to_mcap",
        "value bought - sold, filed in 90 days / market value",
        "ratio",
        "insider_transactions",
        "fundamentals",
        missing=_NO_SHARES,
    ),
    _feature("insider_buy_count_90d", "purchases filed in 90 days", "count", "insider_transactions"),
    _feature(
        "insider_shares_90d_to_so",
        "shares bought - sold, filed in 90 days / shares outstanding",
        "ratio",
        "insider_transactions",
        "fundamentals",
        missing=_NO_SHARES,
    ),
    _feature("insider_value_90d", "value bought - sold, filed in 90 days", "currency", "insider_transactions"),
    _feature(
        "short_interest_to_float",
        "shares short / float as published",
        "ratio",
        "short_interest",
        missing="nothing is published yet, or the last report states no float",
    ),
    _feature(
        "days_to_cover",
        "shares short / average daily volume as published",
        "days",
        "short_interest",
        missing="nothing is published yet, or the last report states no volume",
    ),
    _feature(
        "short_interest_change",
        "shares short / previous settlement's - 1",
        "ratio",
        "short_interest",
        missing="fewer than two settlements are published",
    ),
)


_ORDER = [feature.name for feature in FEATURES]
_NAMES = pd.Index(_ORDER)  # made once: an index of texts is slow to make


class AlternativeFeatureCalculator:
    """Insider trades and short interest."""

    features = FEATURES
    needs: tuple[Need, ...] = ("bars", "fundamentals", "insider_transactions", "short_interest")
    lookback = None

    def __init__(
        self, calendar: str = "XNYS", max_age: timedelta | None = None, max_filing_age: timedelta | None = None
    ) -> None:
        """Limits of staleness: what is older is not known any more; None is no limit.

        Args:
            max_age: of reports of short interest.
            max_filing_age: of filings, which say how many shares are outstanding.
        """
        self._calendar = calendar
        self._max_age = max_age
        self._max_filing_age = max_filing_age

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where nothing was published yet."""
        index = inputs.bars.index
        closes = session_closes(self._calendar, pd.DatetimeIndex(index))
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = _insider(inputs, closes, self._max_filing_age) | _short_interest(inputs, closes, self._max_age)
        nothing = np.full(len(index), np.nan)
        values = np.array([columns.get(name, nothing) for name in _ORDER])
        values[~np.isfinite(values)] = np.nan
        return pd.DataFrame(values.T, index=index, columns=_NAMES)


def _insider(
    inputs: FeatureInputs, closes: pd.DatetimeIndex, max_filing_age: timedelta | None
) -> dict[str, np.ndarray]:
    facts, bars = inputs.insider_transactions, inputs.bars
    if facts is None or facts.empty:
        return {}
    trades = _open_market(facts)
    sums = {
        "value": trailing_sum(closes, trades.available_at, trades.value, _INSIDER_DAYS, trades.filed),
        "shares": trailing_sum(
            closes, trades.available_at, trades.shares / split_level(bars, trades.filed), _INSIDER_DAYS, trades.filed
        ),
        "buys": trailing_sum(closes, trades.available_at, trades.purchases, _INSIDER_DAYS, trades.filed),
    }
    silent = closes < facts["available_at"].min()  # before, nothing is known; after, no trade is a known zero
    sums = {name: np.where(silent, np.nan, np.nan_to_num(total)) for name, total in sums.items()}
    columns = {"insider_value_90d": sums["value"], "insider_buy_count_90d": sums["buys"]}
    if inputs.fundamentals is not None and not inputs.fundamentals.empty:
        outstanding = known_shares(inputs.fundamentals, bars, closes, max_filing_age)
        level = split_level(bars, pd.DatetimeIndex(bars.index))
        columns["insider_shares_90d_to_so"] = sums["shares"] / outstanding
        columns["insider_net_value_90d_to_mcap"] = sums["value"] / (outstanding * level * unadjusted_close(bars))
    return columns


_TRANSACTION = ["document", "insider", "transaction_date", "code", "shares", "line"]
"""What a transaction is, whatever is said of it later."""


@dataclass(frozen=True)
class _Trades:
    """Open-market purchases and sales (n,) in order of availability; a correction is what it adds or takes away."""

    available_at: np.ndarray
    filed: np.ndarray
    """When the transaction was first filed."""
    shares: np.ndarray
    value: np.ndarray
    purchases: np.ndarray
    """1 for a purchase, when it was first filed."""


def _open_market(facts: pd.DataFrame) -> _Trades:
    code = facts["code"].to_numpy(dtype=object)
    moments = facts["available_at"].to_numpy()
    chosen = np.flatnonzero((code == PURCHASE) | (code == SALE))
    chosen = chosen[np.argsort(moments[chosen], kind="stable")]
    available_at = moments[chosen]
    shares = facts["shares"].to_numpy(dtype="float64")[chosen]
    value = shares * facts["price"].to_numpy(dtype="float64")[chosen]
    bought = (code[chosen] == PURCHASE).astype("float64")
    if not set(_TRANSACTION) <= set(facts.columns) or not _filed_again(facts["document"].iloc[chosen], available_at):
        return _Trades(available_at, available_at, shares, value, bought)
    trades = facts.iloc[chosen].assign(value=np.nan_to_num(value)).groupby(_TRANSACTION, dropna=False)
    filed = trades["available_at"].transform("min").to_numpy()
    value = np.nan_to_num(value) - trades["value"].shift(1).fillna(0.0).to_numpy()
    first = available_at == filed
    return _Trades(available_at, filed, shares * first, value, bought * first)


def _filed_again(documents: pd.Series, moments: np.ndarray) -> bool:
    """Whether a document has rows of several moments: only then can a transaction have a correction."""
    codes, found = pd.factorize(documents)
    latest = np.full(len(found), np.datetime64(0, "us"))
    latest[codes] = moments  # in order of time: the last stays
    return bool((latest[codes] != moments).any())


def _short_interest(
    inputs: FeatureInputs, closes: pd.DatetimeIndex, max_age: timedelta | None
) -> dict[str, np.ndarray]:
    reports = inputs.short_interest
    if reports is None or reports.empty:
        return {}
    settled = reports["settlement_date"].to_numpy()
    # A split between two settlements is no change of opinion: counted in shares of the first bar.
    short, traded, shares = floats_of(reports, ("shares_short", "avg_daily_volume", "shares_float"))
    short, traded, shares = np.array([short, traded, shares]) / split_level(inputs.bars, settled)
    known = known_versions(reports["available_at"].to_numpy(), settled)
    latest, previous = known.latest(2).T
    now = known.take(short, latest)
    states = np.array(
        [
            now / known.take(shares, latest),
            now / known.take(traded, latest),
            now / known.take(short, previous) - 1,
        ]
    )
    joined = take_known(states.T, as_of_positions(closes, known.moments, max_age=max_age))
    return dict(zip(("short_interest_to_float", "days_to_cover", "short_interest_change"), joined.T, strict=True))
