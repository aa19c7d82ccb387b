"""Short interest from FINRA's Query API (dataset consolidatedShortInterest, no key).

FINRA names no publication date. Its rule is the eighth business day after the settlement date, counted here
in sessions; the figures come out after the close, so they count from the next session's on.
A revised figure replaces the old one at FINRA: a later load stores it as a version of its own.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from signals_core.calendar import exchange_calendar, to_sessions
from signals_core.errors import ProviderError
from signals_core.http import HttpClient
from signals_core.market_data.availability import close_of_date

PUBLICATION_SESSIONS = 8
_DATASET = "data/group/otcMarket/name/consolidatedShortInterest"
_PAGE = 5000
"""The most records FINRA gives at once; fewer if they exceed 3 MB."""
_REQUESTS_PER_SECOND = 10  # 20 are allowed
_COLUMNS = {
    "settlementDate": "settlement_date",
    "currentShortPositionQuantity": "shares_short",
    "averageDailyVolumeQuantity": "avg_daily_volume",
}
_DOCUMENT = "FINRA"
"""One name for all, so that a revision is another version of the same fact."""
_CYCLE = timedelta(days=16)
"""A settlement may be revised with the next one."""


class FinraProvider:
    """Twice-monthly short interest of US shares.

    Args:
        root: the project's folder (nothing is read there).
        base_url: of the API.
        calendar: of the exchange.
        publication_sessions: from settlement to publication.
        date_only_lag_sessions: how many sessions after the close of the publication date it counts.
        sleep: waits that many seconds.
    """

    name = "finra"
    resumable = True

    def __init__(
        self, root: Path, base_url: str = "https://api.finra.org", calendar: str = "XNYS",
        publication_sessions: int = PUBLICATION_SESSIONS, date_only_lag_sessions: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        del root
        self._url = f"{base_url.rstrip('/')}/{_DATASET}"
        self._calendar = calendar
        self._sessions = publication_sessions
        self._lag = date_only_lag_sessions
        self._http = HttpClient("signals", _REQUESTS_PER_SECOND, sleep=sleep)

    def fetch_short_interest(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """Every settlement, those published before `since` left out; None if FINRA has none.

        Raises:
            ProviderError: FINRA refuses, fails at every attempt, or answers in an unknown format.
        """
        code = symbol.replace(".", "")  # FINRA writes BRKB
        filters = [{"compareType": "EQUAL", "fieldName": "symbolCode", "fieldValue": code}]
        if since is not None:
            # Sessions are five of seven days: twice as many days are enough.
            begin = since - timedelta(days=2 * (self._sessions + self._lag)) - _CYCLE
            after = begin.date().isoformat()
            filters.append({"compareType": "GREATER", "fieldName": "settlementDate", "fieldValue": after})
        records = self._all_pages({"compareFilters": filters, "fields": ["symbolCode", *_COLUMNS]})
        if not records:
            return None
        settled = self._read(symbol, code, records)
        return published_short_interest(settled, self._calendar, self._sessions, self._lag)

    def _all_pages(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        while True:
            page, headers = self._http.post_json(self._url, {**query, "limit": _PAGE, "offset": len(records)})
            page = [] if page is None else page
            if not isinstance(page, list):
                raise ProviderError(f"FINRA: {self._url} answered no list of records")
            records += page
            total = int(headers.get("Record-Total", -1))
            if len(records) >= total >= 0 or (total < 0 and len(page) < _PAGE):
                return records
            if not page:
                raise ProviderError(f"FINRA: {self._url} gave {len(records)} of {total} records; try again later")

    def _read(self, symbol: str, code: str, records: list[dict[str, Any]]) -> pd.DataFrame:
        frame = pd.DataFrame(records)
        missing = [name for name in ("symbolCode", *_COLUMNS) if name not in frame]
        if missing or not (frame["symbolCode"] == code).all():
            fault = f"no {', '.join(missing)}" if missing else "other symbols"
            raise ProviderError(f"FINRA: short interest of {symbol} has {fault}: the source may have changed")
        settled = frame[list(_COLUMNS)].rename(columns=_COLUMNS)
        try:
            dates = pd.to_datetime(settled["settlement_date"], format="%Y-%m-%d")
        except ValueError as error:
            raise ProviderError(f"FINRA: short interest of {symbol} has dates of another format: {error}") from error
        return settled.assign(settlement_date=dates)


def publication_date(
    settlement_dates: Any, calendar: str, sessions: int = PUBLICATION_SESSIONS
) -> pd.DatetimeIndex:  # fmt: skip
    """When FINRA publishes the short interest of each settlement date: that many sessions after it.

    >>> publication_date(["2024-01-12"], "XNYS")[0].date()  # 15 January was a holiday
    datetime.date(2024, 1, 25)

    Source: FINRA Rule 4560 and its reporting schedule: "the 8th business day after the settlement date".

    Raises:
        ValueError: a publication date is outside the calendar.
    """
    days = to_sessions(exchange_calendar(calendar).sessions)
    settled = to_sessions(settlement_dates)
    position = days.searchsorted(settled, side="right") + sessions - 1
    outside = (position >= len(days)) | (settled < days[0])
    if outside.any():
        raise ValueError(f"{settled[outside][0].date()} is outside the calendar {calendar}")
    return days[position]


def published_short_interest(
    settled: pd.DataFrame, calendar: str, sessions: int = PUBLICATION_SESSIONS, lag_sessions: int = 0
) -> pd.DataFrame:
    """The columns of `ShortInterestProvider` from figures that have a settlement date only.

    Args:
        settled: columns settlement_date (plain dates), shares_short (or short_interest), and any others.
        calendar: of the exchange.
        sessions: from settlement to publication.
        lag_sessions: how many sessions after the close of the publication date it counts.
    """
    published = publication_date(settled["settlement_date"], calendar, sessions)
    available = close_of_date(published, calendar, lag_sessions).tz_localize("UTC")
    facts = settled.rename(columns={"short_interest": "shares_short"})
    return facts.assign(available_at=available, document=_DOCUMENT)
