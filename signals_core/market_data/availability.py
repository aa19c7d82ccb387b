"""When a source that gives only dates could be read: the close of a session."""

from typing import Any

import pandas as pd

from signals_core.calendar import DATE_UNIT, exchange_calendar


def close_of_date(dates: Any, calendar: str, lag_sessions: int = 0) -> pd.DatetimeIndex:
    """The close of each date's session (of the next one, if the exchange was closed), in tz-naive UTC.

    Args:
        dates: n plain dates between the calendar's first and last session.
        calendar: of the exchange.
        lag_sessions: that many sessions later.

    Raises:
        ValueError: a date is outside the calendar.
    """
    days = pd.DatetimeIndex(pd.to_datetime(dates)).as_unit("ns")
    closes = exchange_calendar(calendar).closes
    position = closes.index.searchsorted(days.normalize(), side="left") + lag_sessions
    outside = (position >= len(closes)) | (days < closes.index[0])
    if outside.any():
        raise ValueError(
            f"{days[outside][0].date()} is outside the calendar {calendar}, "
            f"{closes.index[0].date()} … {closes.index[-1].date()}"
        )
    return pd.DatetimeIndex(closes.iloc[position]).tz_localize(None).as_unit(DATE_UNIT)
