"""Synthetic daily bars: correlated random walks with a volatility that changes, from fixed seeds."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.calendar import sessions_between

START, END = pd.Timestamp("2020-01-01").date(), pd.Timestamp("2022-07-02").date()
SYMBOLS = ("AAA", "BBB", "SPY", "XLK")
"""There is no ^VIX: it must show as missing."""


def make_bars(symbol: str, start=START, end=END) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    """Columns date, open, high, low, close, volume; the same for a symbol every time."""
    sessions = sessions_between("XNYS", start, end)
    market = np.random.default_rng(1).normal(0, 1, len(sessions))
    random = np.random.default_rng(zlib.crc32(symbol.encode()))
    own = random.normal(0, 1, len(sessions))
    volatility = 0.012 * (1.5 + np.sin(np.arange(len(sessions)) / 60))
    close = 100 * np.exp(np.cumsum(volatility * (0.5 * market + 0.85 * own)))
    open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(random.normal(0, 0.002, len(sessions)))
    reach = np.abs(random.normal(0, 0.006, (2, len(sessions))))
    return pd.DataFrame(
        {
            "date": sessions,
            "open": open_,
            "high": np.maximum(open_, close) * (1 + reach[0]),
            "low": np.minimum(open_, close) * (1 - reach[1]),
            "close": close,
            "volume": random.integers(1_000_000, 5_000_000, len(sessions)).astype(float),
        }
    )


def write_bars(folder: Path) -> None:
    """One CSV file a symbol, as `FilesProvider` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol in SYMBOLS:
        make_bars(symbol).to_csv(folder / f"{symbol}.csv", index=False)
