"""Invented bars with splits and dividends in a real market store, and a clock that stands after a close."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.calendar import exchange_calendar, sessions_between
from signals_core.market_data.screening import screen_bars
from signals_core.market_data.store import MarketStore

CALENDAR = "XNYS"
SESSIONS = sessions_between(CALENDAR, date(2022, 1, 3), date(2022, 5, 1))
LOADED = datetime(2022, 5, 2, tzinfo=UTC)


def after_close(session: date) -> datetime:
    """An hour after the close of a session."""
    close = exchange_calendar(CALENDAR).closes[pd.Timestamp(session)]
    return (close + timedelta(hours=1)).to_pydatetime()


def raw_bars(seed: int, price: float = 100.0) -> pd.DataFrame:
    """Bars as traded: columns date, open, high, low, close, volume, dividend, split (new shares for one, or 0)."""
    random = np.random.default_rng(seed)
    n = len(SESSIONS)
    split, dividend = np.zeros(n), np.zeros(n)
    split[random.choice(np.arange(5, n), 2, replace=False)] = random.choice([2.0, 3.0, 0.5], 2)
    dividend[random.choice(np.arange(5, n), 3, replace=False)] = random.choice([0.25, 1.0, 0.4], 3)
    shares = np.cumprod(np.where(split > 0, split, 1.0))
    close = price * np.exp(np.cumsum(random.normal(0, 0.01, n))) / shares
    open_ = np.concatenate([[price], close[:-1]]) / np.where(split > 0, split, 1.0)
    open_ = open_ * np.exp(random.normal(0, 0.004, n))
    return pd.DataFrame(
        {
            "date": SESSIONS, "open": open_, "high": np.maximum(open_, close) * 1.002,
            "low": np.minimum(open_, close) * 0.998, "close": close, "volume": 1e6,
            "dividend": dividend, "split": split,
        }
    )  # fmt: skip


def store_with(folder: Path, bars: dict[str, pd.DataFrame]) -> MarketStore:
    """A store that knows these bars, each from its own close."""
    store = MarketStore.embedded(folder / "market.sqlite", CALENDAR)
    known = sessions_between(CALENDAR, date(2021, 1, 1), date(2023, 1, 1))
    for symbol, frame in bars.items():
        screened = screen_bars(frame, symbol, known)
        assert len(screened.good) == len(frame), screened.rejected
        store.save_bars(symbol, screened, LOADED)
    return store
