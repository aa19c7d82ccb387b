"""Exchange sessions. The one place that knows when the market is open, and the unit of every date."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

DATE_UNIT = "us"
"""pandas infers seconds, microseconds or nanoseconds by source and refuses to merge them: fixed here."""

# exchange_calendars covers only the last 20 years unless told otherwise.
_FIRST_YEAR, _YEARS_AHEAD = 1990, 1


def to_sessions(values: Any) -> pd.DatetimeIndex:
    """Dates as tz-naive midnights in the project's unit."""
    index = pd.DatetimeIndex(pd.to_datetime(values))
    if index.tz is not None:
        raise ValueError("a session is a date without a time zone: convert to the exchange's date first")
    return index.normalize().as_unit(DATE_UNIT)


@lru_cache(maxsize=8)
def exchange_calendar(name: str) -> "ExchangeCalendar":
    """The calendar of an exchange by its ISO code, such as XNYS, from 1990 to the end of next year."""
    import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    from signals_core.errors import SettingsError

    end = date(date.today().year + _YEARS_AHEAD, 12, 31)
    try:
        return exchange_calendars.get_calendar(name, start=f"{_FIRST_YEAR}-01-02", end=end.isoformat())
    except InvalidCalendarName as error:
        raise SettingsError(f"exchange.calendar: exchange_calendars knows no {name!r}; an example is XNYS") from error


def sessions_between(name: str, start: date, end: date) -> pd.DatetimeIndex:
    """Sessions with start <= session < end."""
    found = exchange_calendar(name).sessions
    found = found[(found >= pd.Timestamp(start)) & (found < pd.Timestamp(end))]
    return to_sessions(found)


def last_closed_session(name: str, moment: datetime) -> date:
    """The latest session whose close is not after `moment`."""
    closes = exchange_calendar(name).closes
    at = pd.Timestamp(moment).tz_convert("UTC")
    closed = int(closes.searchsorted(at, side="right"))
    if closed == 0:
        raise ValueError(f"{moment} is before the first session known of {name}, {closes.index[0].date()}")
    return closes.index[closed - 1].date()


def next_open_session(name: str, moment: datetime) -> date:
    """The first session whose open comes after `moment`."""
    opens = exchange_calendar(name).opens
    return opens.index[int(opens.searchsorted(pd.Timestamp(moment).tz_convert("UTC"), side="right"))].date()


def has_opened_since(name: str, day: date, moment: datetime) -> bool:
    """Whether a session after `day` has opened by a moment: what was known at the close of `day` has been acted on."""
    after = sessions_between(name, day + timedelta(days=1), next_open_session(name, moment))
    return len(after) > 0


def session_closes(name: str, sessions: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The close of each session (n,), tz-naive UTC.

    Raises:
        KeyError: a date is no session of the exchange.
    """
    known = _timetable(name)
    return pd.DatetimeIndex(known.closes[known.positions(sessions)])


def is_month_end(name: str, index: pd.DatetimeIndex) -> np.ndarray:
    """Whether each session of `index` is the last one of its month by the exchange's calendar (bool)."""
    known = _timetable(name)
    at = np.minimum(known.sessions.searchsorted(index.to_numpy()), len(known.sessions) - 1)
    return np.asarray(known.month_end[at] & (known.sessions[at] == index.to_numpy()))


@dataclass(frozen=True)
class _Timetable:
    """A calendar as arrays (n,), since a look-up in them costs microseconds."""

    sessions: np.ndarray
    closes: np.ndarray
    month_end: np.ndarray

    def positions(self, sessions: pd.DatetimeIndex) -> np.ndarray:
        wanted = sessions.to_numpy()
        at = np.minimum(self.sessions.searchsorted(wanted), len(self.sessions) - 1)
        unknown = self.sessions[at] != wanted
        if unknown.any():
            raise KeyError(f"{pd.Timestamp(wanted[unknown][0]).date()} is no session of the exchange")
        return at


@lru_cache(maxsize=8)
def _timetable(name: str) -> _Timetable:
    calendar = exchange_calendar(name)
    sessions = to_sessions(calendar.sessions)
    closes = pd.DatetimeIndex(calendar.closes).tz_convert("UTC").tz_localize(None).as_unit(DATE_UNIT)
    month = sessions.year * 12 + sessions.month
    return _Timetable(sessions.to_numpy(), closes.to_numpy(), np.append(month[:-1] != month[1:], True))
