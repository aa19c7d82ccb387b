"""Everything that the features of one symbol are computed from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import numpy as np
import pandas as pd

from signals_core.market_data.schemas import ADJUSTMENT_COLUMN, BAR_COLUMNS, SPLIT_COLUMN

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
    """Index `date`, the columns of `fundamental.RATIOS`: the median of the symbol's sector as known at each close."""
    insider_transactions: pd.DataFrame | None = None
    short_interest: pd.DataFrame | None = None
    sectors: pd.DataFrame | None = None
    """Index `date`, column `sector`: the symbol's sector from each date on, as in `features.sectors`."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of all inputs."""
        return tuple(item.name for item in fields(cls))

    def items(self) -> list[tuple[str, pd.DataFrame | None]]:
        """(name, frame) of every input, empty frames as None."""
        found = ((name, getattr(self, name)) for name in self.names())
        return [(name, None if frame is None or frame.empty else frame) for name, frame in found]

    def only(self, names: Collection[str]) -> "FeatureInputs":
        """The inputs named; the others as if there were no such data. Bars are always among them."""
        return replace(self, **{name: None for name in self.names() if name not in names and name != "bars"})

    def between(self, first: pd.Timestamp, last: pd.Timestamp) -> "FeatureInputs":
        """With the bars, and the bars of the instruments, of first <= session <= last; facts stay whole."""
        bars = {name: frame for name, frame in self.items() if name.endswith("bars") and frame is not None}
        return replace(self, **{name: frame.loc[first:last] for name, frame in bars.items()})

    def until(self, session: pd.Timestamp, close: pd.Timestamp) -> "FeatureInputs":
        """Every input as it was knowable at the `close` of `session`."""
        cut = {}
        for name in self.names():
            frame = getattr(self, name)
            if frame is not None:
                known = frame["available_at"] <= close if "available_at" in frame else frame.index <= session
                cut[name] = frame[known]
        return replace(self, **cut)


class DataProvider(Protocol):
    """Where `FeatureStore` gets a symbol's inputs."""

    def inputs(self, symbol: str) -> FeatureInputs:
        """All history known of `symbol` and of what it is measured against."""
        ...


def floats_of(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Some columns as rows (k, n) float64, each contiguous; a column that the frame lacks is NaN."""
    at = frame.columns.get_indexer(list(names))
    values = np.array(frame.iloc[:, at].to_numpy(dtype="float64").T, order="C")  # writable, as TA-Lib wants it
    values[at < 0] = np.nan
    return values


def bar_values(bars: pd.DataFrame) -> np.ndarray:
    """Open, high, low, close and volume as rows (5, n) float64; all columns are floats, which is faster."""
    at = [bars.columns.get_loc(name) for name in BAR_COLUMNS]
    return np.array(bars.to_numpy(dtype="float64").T[at], order="C")


def unadjusted_close(bars: pd.DataFrame) -> np.ndarray:
    """The close as traded (n,), which times shares outstanding is the market value."""
    close = bars["close"].to_numpy(dtype="float64")
    return close / bars[ADJUSTMENT_COLUMN].to_numpy() if ADJUSTMENT_COLUMN in bars else close


def split_level(bars: pd.DataFrame, moments: np.ndarray | pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """How many shares one share of the first bar had become at each moment, by the splits up to then (n,).

    A number of shares divided by the level of its own date, times the level at t, is that number in shares of t.
    """
    if SPLIT_COLUMN not in bars or bars.empty:
        return np.ones(len(moments))
    level = bars[SPLIT_COLUMN].to_numpy() / bars[SPLIT_COLUMN].iloc[0]
    at = np.asarray(moments).astype(bars.index.dtype)
    midnight = at.astype("datetime64[D]")
    # Filings are made until 22:00 in New York, when it is the next day in UTC; a plain date is that day.
    days = np.where(at == midnight, midnight, (at - np.timedelta64(_NIGHT)).astype("datetime64[D]"))
    position = bars.index.to_numpy().searchsorted(days.astype(bars.index.dtype), side="right") - 1
    return level[np.maximum(position, 0)]
