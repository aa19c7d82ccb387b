"""Daily bars from Yahoo Finance through yfinance (extra `yahoo`), as traded.

Yahoo gives prices, volumes and dividends in today's shares whatever one asks for (yfinance's options only
concern dividends). What a split did is therefore undone here, exactly as its ratio says.
"""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from signals_core.calendar import exchange_calendar, last_closed_session
from signals_core.errors import MissingPrerequisite, ProviderError
from signals_core.market_data.schemas import PRICE_COLUMNS

_COLUMNS = {
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
    "Dividends": "dividend",
    "Stock Splits": "split",
}
_NOTHING_THERE = ("No data found", "Data doesn't exist")
"""How Yahoo's reason begins if it has no bars of a symbol, or none of these days."""
_NOT_FOUND = 404
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2, 60


class YahooProvider:
    """Bars, dividends and splits of shares, funds and indices.

    Args:
        root: the project's folder (nothing is read there).
        calendar: of the exchange; the bar of a session that has not closed is left out.
        attempts: in all, with exponential backoff; Yahoo often refuses who asks fast.
        sleep: waits that many seconds.
        now: the present moment (default: the wall clock).
    """

    name = "yahoo"
    resumable = True

    def __init__(
        self, root: Path, calendar: str = "XNYS", attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep, now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        del root
        self._calendar = calendar
        self._attempts = attempts
        self._sleep = sleep
        self._now = now

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """Bars from `since` (or the calendar's begin) to the last closed session; None if Yahoo has none.

        Raises:
            ProviderError: Yahoo refuses or fails at every attempt, or a split is of a session still to close.
            MissingPrerequisite: yfinance is not installed.
        """
        moment, exchange = self._now(), exchange_calendar(self._calendar)
        tomorrow = moment.astimezone(exchange.tz).date() + timedelta(days=1)
        history = self._ask(symbol, since or exchange.first_session.date(), tomorrow)
        if history is None or history.empty:
            return None
        frame = history.rename(columns=_COLUMNS)[list(_COLUMNS.values())]
        frame.insert(0, "date", frame.index.tz_localize(None))
        closed = frame["date"] <= pd.Timestamp(last_closed_session(self._calendar, moment))
        # Yahoo restates the past in new shares at some time around the ex-date.
        if (~closed & ~frame["split"].isin([0, 1])).any():
            raise ProviderError(f"Yahoo: {symbol} is split today; ask again after the session's close")
        return undo_splits(frame[closed].reset_index(drop=True))

    def _ask(self, symbol: str, start: date, end: date) -> pd.DataFrame | None:
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        faults = _faults()
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS),
            retry=retry_if_exception_type(faults),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(_download, symbol.replace(".", "-"), start, end)
        except faults as error:
            raise ProviderError(
                f"Yahoo: {symbol}: {type(error).__name__}: {str(error)[:200]}, {self._attempts} attempts; "
                "ask for fewer symbols, or try again later"
            ) from error


def undo_splits(frame: pd.DataFrame) -> pd.DataFrame:
    """Bars and dividends in the shares of their own day, from those in the shares of the last day.

    Before the ex-dates of splits with ratios r1, r2, … a price or dividend is multiplied by r1·r2·… and the
    volume divided by it. Prices get 7 digits, which is what Yahoo's single precision holds.

    Args:
        frame: columns open, high, low, close, volume, dividend and split (0 is none), sorted by date.
    """
    ratio = frame["split"].where(frame["split"] > 0, 1.0)
    later = ratio[::-1].cumprod().shift(1, fill_value=1.0)[::-1]
    raw = frame.copy()
    for name in (*PRICE_COLUMNS, "dividend"):
        raw[name] = (frame[name] * later).map(lambda value: float(f"{value:.7g}"))
    raw["volume"] = (frame["volume"] / later).round()
    return raw


def _download(symbol: str, start: date, end: date) -> pd.DataFrame | None:
    import yfinance
    from yfinance.exceptions import YFPricesMissingError, YFTzMissingError

    # Else a broken connection looks like an unknown symbol: an empty frame and a line in the log.
    yfinance.config.debug.hide_exceptions = False
    ticker = yfinance.Ticker(symbol)
    try:
        return ticker.history(
            start=start.isoformat(), end=end.isoformat(), interval="1d", actions=True,
            auto_adjust=False, back_adjust=False, repair=False,
        )  # fmt: skip
    except YFTzMissingError:
        return None
    except YFPricesMissingError as error:
        answered = "symbol" in ticker.get_history_metadata()
        if answered or str(error.yahoo_reason).startswith(_NOTHING_THERE):
            return None
        raise
    except OSError as error:  # of yfinance's second look-up of an unknown symbol
        if getattr(getattr(error, "response", None), "status_code", None) == _NOT_FOUND:
            return None
        raise


def _faults() -> tuple[Any, ...]:
    """What yfinance raises: its own errors, those of the network, and those of reading what is no answer."""
    try:
        from yfinance.exceptions import YFException
    except ModuleNotFoundError as error:
        raise MissingPrerequisite("yfinance is not installed: pip install 'signals[yahoo]'") from error
    return YFException, OSError, ValueError, LookupError, TypeError, AttributeError
