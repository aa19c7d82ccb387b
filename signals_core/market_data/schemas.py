"""The frames that cross module boundaries, and the check that names each bad row and its reason."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.calendar import to_sessions
from signals_core.errors import DataError

if TYPE_CHECKING:
    import pandera.pandas as pa

PRICE_COLUMNS = ("open", "high", "low", "close")
BAR_COLUMNS = (*PRICE_COLUMNS, "volume")
ADJUSTMENT_COLUMN = "adjustment"
"""Factor k that turns a raw price into an adjusted one: price * k, volume / k."""

FUNDAMENTAL_FLOWS = ("revenue", "net_income", "ebitda", "dividends_per_share", "eps")
FUNDAMENTAL_BALANCES = (
    "total_equity",
    "total_debt",
    "cash",
    "current_assets",
    "current_liabilities",
    "shares_outstanding",
)
FUNDAMENTAL_VALUES = FUNDAMENTAL_FLOWS + FUNDAMENTAL_BALANCES

# High may fall short of open or close by the rounding of prices adjusted to float32 or to cents.
_RELATIVE_TOLERANCE = 1e-6


def bars_schema() -> "pa.DataFrameSchema":
    """Pandera schema of bars: index `date` (tz-naive midnight, unique, sorted), OHLCV in price units.

    The optional column `adjustment` is the factor that was applied: price / adjustment is the raw price.
    """
    import pandera.pandas as pa

    positive = pa.Check.gt(0)
    return pa.DataFrameSchema(
        {
            **{name: pa.Column(float, positive) for name in PRICE_COLUMNS},
            "volume": pa.Column(float, pa.Check.ge(0)),
            ADJUSTMENT_COLUMN: pa.Column(float, positive, required=False),
        },
        index=pa.Index("datetime64[us]", unique=True, name="date"),
        checks=[
            pa.Check(lambda frame: frame.index.is_monotonic_increasing, error="dates are not sorted"),
            pa.Check(lambda frame: ~_high_too_low(frame), error="high is below open, low or close"),
            pa.Check(lambda frame: ~_low_too_high(frame), error="low is above open or close"),
        ],
        strict=True,
    )


def validate_bars(bars: pd.DataFrame, symbol: str) -> pd.DataFrame:
    """Return `bars` unchanged if they fit `bars_schema`.

    Raises:
        DataError: names the symbol, and for each failure the column, the row's date and the rule broken.
    """
    import pandera.errors

    try:
        return bars_schema().validate(bars, lazy=True)
    except pandera.errors.SchemaErrors as error:
        # A rule on whole rows fails once a column.
        cases = error.failure_cases.drop_duplicates(["check", "index"])
        shown = cases.head(5)
        lines = [f"{row.column or 'bars'} at {row.index}: {row.check}" for row in shown.itertuples(index=False)]
        more = len(cases) - len(shown)
        raise DataError(
            f"bars of {symbol} break the schema: {'; '.join(map(str, lines))}"
            + (f"; and {more} more" if more > 0 else "")
        ) from None


@dataclass(frozen=True)
class ScreenedBars:
    """Bars that can be stored, and those that cannot with the reason of each."""

    good: pd.DataFrame
    rejected: pd.DataFrame
    """Columns of the source plus `reason`."""


def screen_bars(raw: pd.DataFrame, symbol: str, sessions: pd.DatetimeIndex) -> ScreenedBars:
    """Split a source's rows into good bars and rejected ones; nothing is repaired.

    Args:
        raw: columns date, open, high, low, close, volume and optionally adjustment (default 1), any order.
        symbol: named in errors.
        sessions: the days on which the exchange was open.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in ("date", *BAR_COLUMNS) if name not in raw.columns]
    if missing:
        raise DataError(
            f"bars of {symbol} lack the column(s) {', '.join(missing)}; found {', '.join(map(str, raw.columns))}"
        )
    frame = raw.reset_index(drop=True)
    if ADJUSTMENT_COLUMN not in frame:
        frame = frame.assign(**{ADJUSTMENT_COLUMN: 1.0})
    numeric = [*BAR_COLUMNS, ADJUSTMENT_COLUMN]
    values = frame[numeric].apply(pd.to_numeric, errors="coerce").astype("float64")
    dates = pd.to_datetime(frame["date"], errors="coerce")
    if dates.dt.tz is not None:
        raise DataError(f"bars of {symbol} carry a time zone: give the exchange's date, without a time")

    dates = dates.dt.normalize()
    prices = values[list(PRICE_COLUMNS)]
    reason = pd.Series("", index=frame.index, dtype=object)
    rules = {
        "date cannot be read": dates.isna(),
        "price or volume is missing or infinite": ~np.isfinite(values).all(axis=1),
        "price or adjustment is not positive": (prices <= 0).any(axis=1) | (values[ADJUSTMENT_COLUMN] <= 0),
        "volume is negative": values["volume"] < 0,
        "high is below open, low or close": _high_too_low(values),
        "low is above open or close": _low_too_high(values),
        "exchange was closed": dates.notna() & ~dates.isin(sessions),
    }
    for text, broken in rules.items():
        reason = reason.mask(broken & (reason == ""), text)
    sound = reason == ""
    repeated = dates[sound].duplicated(keep="last").reindex(reason.index, fill_value=False)
    reason = reason.mask(repeated, "date occurs more than once")

    keep = (reason == "").to_numpy()
    good = values.loc[keep].set_axis(to_sessions(dates[keep]), axis=0).rename_axis("date").sort_index()
    return ScreenedBars(good, frame.loc[~keep].assign(reason=reason[~keep]))


def adjust(stored: pd.DataFrame) -> pd.DataFrame:
    """Adjusted bars from raw ones with their factor k: prices times k, volume divided by k; k is kept."""
    factor = stored[ADJUSTMENT_COLUMN]
    prices = stored[list(PRICE_COLUMNS)].mul(factor, axis=0)
    return prices.assign(volume=stored["volume"] / factor, **{ADJUSTMENT_COLUMN: factor})


def _high_too_low(bars: pd.DataFrame) -> pd.Series:
    return bars["high"] * (1 + _RELATIVE_TOLERANCE) < bars[["open", "low", "close"]].max(axis=1)


def _low_too_high(bars: pd.DataFrame) -> pd.Series:
    return bars["low"] * (1 - _RELATIVE_TOLERANCE) > bars[["open", "close"]].min(axis=1)
