"""The frames that cross module boundaries, and the check that names each bad row and its reason."""

from typing import TYPE_CHECKING

import pandas as pd

from signals_core.errors import DataError

if TYPE_CHECKING:
    import pandera.pandas as pa

PRICE_COLUMNS = ("open", "high", "low", "close")
BAR_COLUMNS = (*PRICE_COLUMNS, "volume")
ADJUSTMENT_COLUMN = "adjustment"
"""Factor k that turned a raw price into this adjusted one: price / k is the price as traded."""
SPLIT_COLUMN = "split_adjustment"
"""The part of `adjustment` that is splits: what k shares of then are in shares of the series' reference date."""

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
            SPLIT_COLUMN: pa.Column(float, positive, required=False),
        },
        index=pa.Index("datetime64[us]", unique=True, name="date"),
        checks=[
            pa.Check(lambda frame: frame.index.is_monotonic_increasing, error="dates are not sorted"),
            pa.Check(lambda frame: ~high_too_low(frame), error="high is below open, low or close"),
            pa.Check(lambda frame: ~low_too_high(frame), error="low is above open or close"),
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


def high_too_low(bars: pd.DataFrame) -> pd.Series:
    """Rows whose high is below open, low or close, by more than rounding."""
    return bars["high"] * (1 + _RELATIVE_TOLERANCE) < bars[["open", "low", "close"]].max(axis=1)


def low_too_high(bars: pd.DataFrame) -> pd.Series:
    """Rows whose low is above open or close, by more than rounding."""
    return bars["low"] * (1 - _RELATIVE_TOLERANCE) > bars[["open", "close"]].min(axis=1)


_FACT_COLUMNS: dict[str, tuple[str, ...]] = {
    "fundamentals": ("available_at", "period_end"),
    "insider_transactions": ("available_at", "code", "shares", "price"),
    "short_interest": ("available_at", "settlement_date", "shares_short"),
}
"""What features cannot do without; a value that a source does not have may be absent."""

_MOMENTS = ("available_at", "period_end", "transaction_date", "settlement_date")


def validate_facts(dataset: str, facts: pd.DataFrame, symbol: str) -> pd.DataFrame:
    """Return `facts` unchanged if features can be computed from them.

    Args:
        dataset: fundamentals, insider_transactions or short_interest.

    Raises:
        DataError: a column lacks, or a moment is not tz-naive (UTC); names it, and what to do.
    """
    absent = [name for name in _FACT_COLUMNS[dataset] if name not in facts]
    if absent:
        raise DataError(f"{dataset} of {symbol}: no column {', '.join(absent)}; there are {', '.join(facts.columns)}")
    for name in _MOMENTS:
        if name not in facts:
            continue
        kind = facts[name].dtype
        if getattr(kind, "tz", None) is not None:
            raise DataError(
                f'{dataset} of {symbol}: {name} has a time zone; use .dt.tz_convert("UTC").dt.tz_localize(None)'
            )
        if kind.kind != "M":
            raise DataError(f"{dataset} of {symbol}: {name} is of type {kind}, not of dates: use pandas.to_datetime")
    if facts["available_at"].isna().any():
        row = facts.index[facts["available_at"].isna()][0]
        raise DataError(f"{dataset} of {symbol}: available_at is missing at row {row}; leave the row out")
    return facts
