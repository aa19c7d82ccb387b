"""Everything that the features of one symbol are computed from."""

from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np
import pandas as pd

from signals_core.market_data.schemas import ADJUSTMENT_COLUMN, SPLIT_COLUMN

_NIGHT = pd.Timedelta(hours=6)


@dataclass(frozen=True)
class FeatureInputs:
    """Frames as in `market_data.schemas`; None means that there is no such data."""

    bars: pd.DataFrame
    spy_bars: pd.DataFrame | None = field(default=None)
    vix_bars: pd.DataFrame | None = None
    sector_bars: pd.DataFrame | None = None
    fundamentals: pd.DataFrame | None = None
    sector_fundamentals: pd.DataFrame | None = None
    insider_transactions: pd.DataFrame | None = None
    short_interest: pd.DataFrame | None = None

    def items(self) -> list[tuple[str, pd.DataFrame | None]]:
        """(name, frame) of every input, empty frames as None."""
        found = ((item.name, getattr(self, item.name)) for item in fields(self))
        return [(name, None if frame is None or frame.empty else frame) for name, frame in found]


class DataProvider(Protocol):
    """Where `FeatureStore` gets a symbol's inputs."""

    def inputs(self, symbol: str) -> FeatureInputs:
        """All history known of `symbol` and of what it is measured against."""
        ...


def unadjusted_close(bars: pd.DataFrame) -> pd.Series:
    """The close as traded, which times shares outstanding is the market value."""
    if ADJUSTMENT_COLUMN in bars:
        return bars["close"] / bars[ADJUSTMENT_COLUMN]
    return bars["close"]


def split_level(bars: pd.DataFrame, moments: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """How many shares one share of the first bar had become at each moment, by the splits up to then (n,).

    A number of shares divided by the level of its own date, times the level at t, is that number in shares of t.
    """
    if SPLIT_COLUMN not in bars or bars.empty:
        return np.ones(len(moments))
    level = bars[SPLIT_COLUMN].to_numpy() / bars[SPLIT_COLUMN].iloc[0]
    at = pd.DatetimeIndex(moments)
    # Filings are made until 22:00 in New York, when it is the next day in UTC; a plain date is that day.
    local = at.where(at == at.normalize(), at - _NIGHT)
    days = local.normalize().as_unit(bars.index.unit)
    position = bars.index.searchsorted(days, side="right") - 1
    return level[np.maximum(position, 0)]
