"""Adjusted prices, derived from bars as traded and the corporate actions known at a moment.

A split of s new shares for one divides earlier prices by s; a dividend D multiplies them by 1 − D / C, C being
the close before the ex-date (the convention of CRSP and of Yahoo's adjusted close); a factor, taken from an
adjusted close, multiplies them by itself.
"""

from typing import Literal

import numpy as np
import pandas as pd

from signals_core.market_data.schemas import ADJUSTMENT_COLUMN, PRICE_COLUMNS, SPLIT_COLUMN

Adjustment = Literal["backward", "forward", "none"]
"""backward: the last bar is as traded, the usual chart. forward: the first bar is as traded, so that a later
action leaves every earlier row as it was. none: as traded."""


def adjust(bars: pd.DataFrame, actions: pd.DataFrame, adjustment: Adjustment = "backward") -> pd.DataFrame:
    """Bars adjusted for the actions between the first and the last of them.

    Args:
        bars: as traded; index `date`, columns open, high, low, close, volume.
        actions: columns ex_date, kind, value; one whose day has no bar counts from the next bar.
        adjustment: which bar stays as traded.

    Returns:
        The same rows with the columns `adjustment` and `split_adjustment`: price / adjustment is as traded.
    """
    split, factor, dividend = effects_per_bar(bars, actions)
    if adjustment == "none":
        ones = pd.Series(1.0, index=bars.index)
        return bars.assign(**{ADJUSTMENT_COLUMN: ones, SPLIT_COLUMN: ones})
    # Each is the ratio of the price after to the price before, other things equal.
    previous = np.concatenate([[np.inf], bars["close"].to_numpy()[:-1]])
    paid = 1 - dividend * split / previous
    price = _level(factor * paid / split, adjustment)
    shares = _level(1 / split, adjustment)
    volume = _level(factor / split, adjustment)
    columns = {name: bars[name] * price for name in PRICE_COLUMNS}
    return pd.DataFrame(
        {**columns, "volume": bars["volume"] / volume, ADJUSTMENT_COLUMN: price, SPLIT_COLUMN: shares},
        index=bars.index,
    )


def _level(step: np.ndarray, adjustment: Adjustment) -> np.ndarray:
    """What each bar's price is multiplied by, given the step at each bar."""
    passed = np.cumprod(step)
    if adjustment == "forward" or not len(passed):
        return 1 / passed
    return passed[-1] / passed


def effects_per_bar(bars: pd.DataFrame, actions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split ratio, factor and dividend that take effect at each bar (n,) each; at the first bar nothing does."""
    split, factor, dividend = np.ones(len(bars)), np.ones(len(bars)), np.zeros(len(bars))
    position = bars.index.searchsorted(actions["ex_date"].to_numpy(), side="left")
    inside = (position > 0) & (position < len(bars))
    for at, kind, value in zip(position[inside], actions["kind"][inside], actions["value"][inside], strict=True):
        if kind == "split":
            split[at] *= value
        elif kind == "factor":
            factor[at] *= value
        else:
            dividend[at] += value
    return split, factor, dividend
