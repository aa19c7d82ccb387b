"""Daily values of Cboe's volatility indices, from the CSV files it publishes (no key)."""

import io
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd

from signals_core.errors import ProviderError
from signals_core.http import HttpClient
from signals_core.market_data.schemas import PRICE_COLUMNS

_COLUMNS = ("date", *PRICE_COLUMNS)
_REQUESTS_PER_SECOND = 2


class CboeProvider:
    """^VIX, ^VIX9D, ^VIX3M and others that Cboe gives with open, high, low and close; they have no volume.

    Args:
        root: the project's folder (nothing is read there).
        base_url: folder of the files `<INDEX>_History.csv`.
        sleep: waits that many seconds.
    """

    name = "cboe"

    def __init__(
        self, root: Path, base_url: str = "https://cdn.cboe.com/api/global/us_indices/daily_prices",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        del root
        self._base_url = base_url.rstrip("/")
        self._http = HttpClient("signals", _REQUESTS_PER_SECOND, sleep=sleep)

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """The index called `symbol`, with or without ^; None if Cboe has no file of it.

        Raises:
            ProviderError: Cboe refuses, fails at every attempt, or the file is no such CSV.
        """
        url = f"{self._base_url}/{symbol.removeprefix('^')}_History.csv"
        body = self._http.get(url)
        if body is None:
            return None
        try:
            frame = _read(body)
        except ValueError as error:
            raise ProviderError(f"GET {url}: no CSV of {', '.join(_COLUMNS)}: {str(error)[:200]}") from error
        if since is not None:
            frame = frame[frame["date"] >= pd.Timestamp(since)]
        return frame.reset_index(drop=True)


def _read(body: bytes) -> pd.DataFrame:
    frame = pd.read_csv(io.StringIO(body.decode("utf-8-sig"))).rename(columns=lambda name: name.strip().lower())
    if tuple(frame.columns) != _COLUMNS:
        raise ValueError(f"its columns are {', '.join(frame.columns)}")
    if frame.empty or frame.isna().to_numpy().any():
        raise ValueError("it is empty or cut short")
    prices = frame[list(PRICE_COLUMNS)].astype(float)
    return prices.assign(date=pd.to_datetime(frame["date"], format="%m/%d/%Y"), volume=0.0)
