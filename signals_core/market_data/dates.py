"""Reading the dates and moments that sources give; what could mean two things is refused with the reason."""

import re

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.market_data.availability import close_of_date

_ISO_DATE = r"\d{4}(-\d{2}-\d{2}|\d{4})"
_TIME = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?"
_DATE = re.compile(rf"{_ISO_DATE}([T ]{_TIME})?\Z", re.ASCII)
_OFFSET_DATE = re.compile(rf"{_ISO_DATE}([T ]{_TIME})?\s*(Z|UTC|[+-]\d{{2}}:?\d{{2}})\Z", re.ASCII)


def read_dates(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Plain dates as tz-naive midnights, and for each that is none the reason (else an empty text).

    Only dates, moments without offset and ISO texts are dates: 03/04/2020 may be March or April, and a
    number may count from any year.
    """
    reason = pd.Series("", index=values.index, dtype=object)
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        missing = values.isna()
        reason[:] = np.where(missing, "date is missing", "date carries a time zone: give the exchange's date")
        return pd.Series(pd.NaT, index=values.index, dtype=f"datetime64[{DATE_UNIT}]"), reason
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        texts = values.dt.strftime("%Y-%m-%d").fillna("").astype(object)
    else:
        texts = _date_texts(values)
    readable = texts.str.match(_DATE)
    dates = pd.to_datetime(texts.where(readable).str[:10].str.replace("-", ""), format="%Y%m%d", errors="coerce")
    dates = dates.astype(f"datetime64[{DATE_UNIT}]")
    reason = reason.mask(dates.isna(), "date cannot be read")
    reason = reason.mask(texts.str.match(_OFFSET_DATE), "date carries a time zone: give the exchange's date")
    return dates, reason.mask(texts == "", "date is missing")


def _date_texts(values: pd.Series) -> pd.Series:
    return pd.Series([_date_text(value) for value in values.astype(object)], index=values.index, dtype=object)


def _date_text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if is_missing(value):
        return ""
    return str(value.isoformat()) if hasattr(value, "isoformat") else f"no date: {value}"


def read_moments(values: pd.Series, calendar: str, lag_sessions: int) -> tuple[pd.Series, pd.Series]:
    """Moments in tz-naive UTC; a plain date is the close of that session, `lag_sessions` later."""
    reason = pd.Series("", index=values.index, dtype=object)
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        moments = values.dt.tz_convert("UTC").dt.tz_localize(None).astype(f"datetime64[{DATE_UNIT}]")
        reason = reason.mask(moments.isna(), "date is missing")
        plain = pd.Series(False, index=values.index)
    elif pd.api.types.is_datetime64_any_dtype(values.dtype):
        moments = values.astype(f"datetime64[{DATE_UNIT}]")
        reason = reason.mask(moments.isna(), "date is missing")
        plain = moments == moments.dt.normalize()
    else:
        texts = _date_texts(values)
        iso = texts.str.match(_DATE) | texts.str.match(_OFFSET_DATE)
        parsed = pd.to_datetime(texts.where(iso), format="ISO8601", errors="coerce", utc=True)
        moments = parsed.dt.tz_localize(None).astype(f"datetime64[{DATE_UNIT}]")
        reason = reason.mask(moments.isna(), "date cannot be read").mask(texts == "", "date is missing")
        plain = (texts.str.len() <= len("YYYY-MM-DD")) | (moments == moments.dt.normalize())
        plain &= ~texts.str.match(_OFFSET_DATE)
    known = moments.notna()
    outside = known & ~moments.between(*_KNOWN_TIMES)
    reason = reason.mask(outside, "date is outside 1990 … the end of next year")
    plain &= known & ~outside
    moments = moments.mask(outside)
    if plain.any():
        moments = moments.copy()
        moments[plain] = np.asarray(close_of_date(moments[plain], calendar, lag_sessions))
    return moments, reason


def _known_times() -> tuple[pd.Timestamp, pd.Timestamp]:
    this_year = pd.Timestamp.now().year
    return pd.Timestamp("1990-01-02"), pd.Timestamp(this_year + 1, 12, 1)


_KNOWN_TIMES = _known_times()
"""What the exchange's calendar covers."""


def is_missing(value: object) -> bool:
    """Whether one value says nothing."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
