"""Alternative features: open-market insider trades and short interest, as published."""

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, Need
from signals_core.features.fundamental import in_first_shares, quarters_of
from signals_core.features.inputs import FeatureInputs, split_level, unadjusted_close
from signals_core.features.point_in_time import as_of_join, known_states, session_closes, trailing_sum

_INSIDER_DAYS = 90
PURCHASE, SALE = "P", "S"
"""SEC Form 4 codes of open-market trades; grants, gifts and exercises say nothing about an opinion."""


def _feature(name: str, formula: str, unit: str, *needs: Need) -> Feature:
    return Feature(name, "alternative", formula, unit, 0, ("bars", *needs))


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

    needs: tuple[Need, ...] = ("bars", "fundamentals", "insider_transactions", "short_interest")

    def __init__(self, calendar: str = "XNYS") -> None:
        self._calendar = calendar

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where nothing was published yet."""
        bars = inputs.bars
        frame = pd.DataFrame(np.nan, index=bars.index, columns=[feature.name for feature in FEATURES])
        closes = session_closes(self._calendar, pd.DatetimeIndex(bars.index))
        if inputs.insider_transactions is not None and not inputs.insider_transactions.empty:
            self._insider(frame, inputs, closes)
        if inputs.short_interest is not None and not inputs.short_interest.empty:
            self._short_interest(frame, inputs.short_interest, inputs.bars, closes)
        return frame.replace([np.inf, -np.inf], np.nan)

    def _insider(self, frame: pd.DataFrame, inputs: FeatureInputs, closes: pd.DatetimeIndex) -> None:
        trades = inputs.insider_transactions
        assert trades is not None
        trades = _latest_versions(trades[trades["code"].isin([PURCHASE, SALE])])
        shares_traded = trades["shares"] / split_level(inputs.bars, trades["available_at"])
        sums = {
            name: trailing_sum(closes, trades["available_at"], amounts, _INSIDER_DAYS)
            for name, amounts in (
                ("value", trades["shares"] * trades["price"]),
                ("shares", shares_traded),
                ("buys", (trades["code"] == PURCHASE).astype("float64")),
            )
        }
        frame["insider_value_90d"] = sums["value"]
        frame["insider_buy_count_90d"] = sums["buys"]
        if inputs.fundamentals is not None and not inputs.fundamentals.empty:
            quarters = in_first_shares(quarters_of(inputs.fundamentals), inputs.bars)
            states = known_states(quarters, "period_end", _shares_outstanding)
            shares = as_of_join(closes, states)["shares_outstanding"].to_numpy(dtype="float64")
            frame["insider_shares_90d_to_so"] = sums["shares"] / shares
            level = split_level(inputs.bars, pd.DatetimeIndex(inputs.bars.index))
            market_value = shares * level * unadjusted_close(inputs.bars).to_numpy()
            frame["insider_net_value_90d_to_mcap"] = sums["value"] / market_value

    def _short_interest(
        self, frame: pd.DataFrame, reports: pd.DataFrame, bars: pd.DataFrame, closes: pd.DatetimeIndex
    ) -> None:
        # A split between two settlements is no change of opinion: counted in shares of the first bar.
        level = split_level(bars, reports["settlement_date"])
        counted = [name for name in ("shares_short", "avg_daily_volume", "shares_float") if name in reports]
        in_shares = {name: reports[name] / level for name in counted}
        known = as_of_join(closes, known_states(reports.assign(**in_shares), "settlement_date", _short_interest))
        frame[list(known.columns)] = known.to_numpy(dtype="float64")


def _latest_versions(trades: pd.DataFrame) -> pd.DataFrame:
    """Each transaction once, with its corrected figures, from when it was first filed."""
    key = ["document", "insider", "transaction_date", "code", "shares", "line"]
    if not set(key) <= set(trades.columns):
        return trades
    first = trades.groupby(key, dropna=False)["available_at"].transform("min")
    return trades.assign(available_at=first).drop_duplicates(key, keep="last")


def _shares_outstanding(quarters: pd.DataFrame) -> dict[str, object]:
    return {"shares_outstanding": quarters["shares_outstanding"].iloc[-1]}


def _short_interest(settlements: pd.DataFrame) -> dict[str, object]:
    latest = settlements.iloc[-1]
    previous = settlements["shares_short"].iloc[-2] if len(settlements) > 1 else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "short_interest_to_float": np.divide(latest["shares_short"], latest["shares_float"]),
            "days_to_cover": np.divide(latest["shares_short"], latest["avg_daily_volume"]),
            "short_interest_change": np.divide(latest["shares_short"], previous) - 1,
        }
