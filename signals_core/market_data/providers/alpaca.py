"""Daily bars and corporate actions from Alpaca (extra `alpaca`), as traded."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from signals_core.calendar import last_closed_session, to_sessions
from signals_core.errors import MissingPrerequisite, ProviderError, SettingsError

_KEY_ID, _SECRET = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"
_FEEDS = ("iex", "sip")
_ZONE = "America/New_York"
_COLUMNS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
_DELAY = timedelta(minutes=16)
"""Without a subscription the last 15 minutes are refused; late trades come in them, too."""
_LATE = timedelta(days=60)
"""A dividend is filed under the day it is paid, weeks after its ex-date: look back that far for new ones."""
_AHEAD = timedelta(days=120)
_TIMEOUT_SECONDS, _RETRIES = 30, 4
_TRY_AGAIN = (429, 500, 502, 503, 504)
_REFUSED = (401, 403)


class AlpacaProvider:
    """Bars of US shares and funds; cash dividends, forward and reverse splits.

    The keys are read from the environment variables APCA_API_KEY_ID and APCA_API_SECRET_KEY.

    Args:
        root: the project's folder (nothing is read there).
        feed: `iex` (free; the volume is of that one exchange) or `sip` (all exchanges).
        url_override: address of the data service.
        actions_url_override: address of the corporate actions service.
        start: where the history begins; Alpaca's does in 2016.
        calendar: of the exchange; the bar of a session that has not closed is left out.
        now: the present moment (default: the wall clock).
    """

    name = "alpaca"
    resumable = True

    def __init__(
        self, root: Path, feed: str = "iex", url_override: str | None = None, actions_url_override: str | None = None,
        start: str | date = "2016-01-01", calendar: str = "XNYS",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        del root
        if feed not in _FEEDS:
            raise SettingsError(f"market_data.options.feed: {feed!r} is neither of {', '.join(_FEEDS)}")
        self._feed = feed
        self._url = url_override
        self._actions_url = actions_url_override
        self._start = pd.Timestamp(start).date()
        self._calendar = calendar
        self._now = now

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """Bars to the last closed session; None if Alpaca has none, as of every index.

        Raises:
            ProviderError: Alpaca refuses, or fails at every attempt.
            SettingsError: the keys are not in the environment.
            MissingPrerequisite: alpaca-py is not installed.
        """
        if symbol.startswith("^"):
            return None
        moment = self._now() - _DELAY
        begin = max(self._start, since - _LATE) if since else self._start
        rows = self._ask("bars", symbol, lambda: self._bars(symbol, begin, moment))
        if rows is None:
            return None
        actions = self._ask("corporate actions", symbol, lambda: self._corporate_actions(symbol, begin, moment))
        last = pd.Timestamp(last_closed_session(self._calendar, moment))
        frame = rows.join(actions[actions.index >= rows.index[0]], how="outer")
        frame = frame[frame.index <= last].rename_axis("date").reset_index()
        return frame.fillna({"dividend": 0.0, "split": 0.0}) if len(frame) else None

    def _bars(self, symbol: str, begin: date, end: datetime) -> pd.DataFrame | None:
        from alpaca.data.enums import Adjustment, DataFeed
        from alpaca.data.requests import StockBarsRequest
        from alpaca.data.timeframe import TimeFrame

        request = StockBarsRequest(
            symbol_or_symbols=symbol,
            timeframe=TimeFrame.Day,
            start=pd.Timestamp(begin, tz=_ZONE).to_pydatetime(),
            end=end,
            adjustment=Adjustment.RAW,
            feed=DataFeed(self._feed),
        )
        rows = self._bars_client.get_stock_bars(request).get(symbol)
        if not rows:
            return None
        raw = pd.DataFrame(rows)
        starts = pd.to_datetime(raw["t"], utc=True).dt.tz_convert(_ZONE)  # midnight in New York
        return raw[list(_COLUMNS)].rename(columns=_COLUMNS).set_axis(to_sessions(starts.dt.tz_localize(None)), axis=0)

    def _corporate_actions(self, symbol: str, begin: date, end: datetime) -> pd.DataFrame:
        from alpaca.data.enums import CorporateActionsType
        from alpaca.data.requests import CorporateActionsRequest

        kinds = CorporateActionsType
        request = CorporateActionsRequest(
            symbols=[symbol],
            types=[kinds.FORWARD_SPLIT, kinds.REVERSE_SPLIT, kinds.CASH_DIVIDEND],
            start=begin,
            end=(end + _AHEAD).date(),
            limit=None,  # its default stops after 1000
        )
        return _by_ex_date(self._actions_client.get_corporate_actions(request))

    @cached_property
    def _bars_client(self) -> Any:
        from alpaca.data.historical.stock import StockHistoricalDataClient

        return _patient(StockHistoricalDataClient(*_keys(), raw_data=True, url_override=self._url))

    @cached_property
    def _actions_client(self) -> Any:
        from alpaca.data.historical.corporate_actions import CorporateActionsClient

        return _patient(CorporateActionsClient(*_keys(), raw_data=True, url_override=self._actions_url))

    def _ask(self, what: str, symbol: str, answer: Callable[[], Any]) -> Any:
        import requests

        try:
            from alpaca.common.exceptions import APIError
        except ModuleNotFoundError as error:
            raise MissingPrerequisite("alpaca-py is not installed: pip install 'signals[alpaca]'") from error
        try:
            return answer()
        except APIError as error:
            refused = error.status_code in _REFUSED
            hint = f"check the keys, and that they may read the feed {self._feed}" if refused else "try again later"
            raise ProviderError(f"Alpaca: {what} of {symbol}: status {error.status_code}; {hint}") from error
        except requests.exceptions.RequestException as error:
            # Its text may hold the whole request.
            raise ProviderError(f"Alpaca: {what} of {symbol}: {type(error).__name__}; try again later") from None
        except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise ProviderError(
                f"Alpaca: {what} of {symbol}: not in the known format ({type(error).__name__}: {error})"
            ) from error


def _keys() -> tuple[str, str]:
    missing = [name for name in (_KEY_ID, _SECRET) if not os.environ.get(name)]
    if missing:
        raise SettingsError(f"alpaca needs your keys: set the environment variables {' and '.join(missing)}")
    return os.environ[_KEY_ID], os.environ[_SECRET]


def _patient(client: Any) -> Any:
    """alpaca-py waits for ever and ignores Retry-After; its session does neither afterwards."""
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(total=_RETRIES, status_forcelist=_TRY_AGAIN, backoff_factor=1, redirect=0)
    session = client._session
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    session.request = partial(session.request, timeout=_TIMEOUT_SECONDS)
    return client


def _by_ex_date(found: dict[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """Index ex-date, columns split (product of the day's ratios) and dividend (sum of the day's)."""
    splits: dict[str, float] = {}
    for action in [*found.get("forward_splits", []), *found.get("reverse_splits", [])]:
        day, ratio = action["ex_date"], float(action["new_rate"]) / float(action["old_rate"])
        splits[day] = splits.get(day, 1.0) * ratio
    dividends: dict[str, float] = {}
    for action in found.get("cash_dividends", []):
        dividends[action["ex_date"]] = dividends.get(action["ex_date"], 0.0) + float(action["rate"])
    table = pd.DataFrame({"split": pd.Series(splits, dtype=float), "dividend": pd.Series(dividends, dtype=float)})
    return table.set_axis(to_sessions(table.index), axis=0)
