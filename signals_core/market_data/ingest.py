"""From a provider into the store, symbol by symbol: one symbol's failure does not stop the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from signals_core.calendar import exchange_calendar, to_sessions
from signals_core.errors import DataError
from signals_core.market_data.providers.base import BarProvider
from signals_core.market_data.schemas import screen_bars
from signals_core.market_data.store import MarketStore
from signals_core.progress import track


@dataclass(frozen=True)
class IngestedSymbol:
    """What one load of a symbol did."""

    symbol: str
    rows: int
    changed: int
    rejected: int
    problem: str | None = None
    """Why nothing was stored, if so."""


def ingest_bars(
    store: MarketStore, provider: BarProvider, symbols: Sequence[str], calendar: str
) -> list[IngestedSymbol]:
    """Fetch, screen and store the bars of each symbol. Repeating it changes nothing."""
    sessions = to_sessions(exchange_calendar(calendar).sessions)
    return [_ingest(store, provider, symbol, sessions) for symbol in track("ingest", symbols, len(symbols))]


def _ingest(store: MarketStore, provider: BarProvider, symbol: str, sessions: pd.DatetimeIndex) -> IngestedSymbol:
    try:
        raw = provider.fetch_bars(symbol)
    except (OSError, ValueError) as error:  # a network or a file that fails, a text that cannot be parsed
        return IngestedSymbol(symbol, 0, 0, 0, f"{provider.name} cannot read {symbol}: {error}")
    if raw is None:
        return IngestedSymbol(symbol, 0, 0, 0, f"{provider.name} has no bars of {symbol}")
    try:
        screened = screen_bars(raw, symbol, sessions)
    except DataError as error:
        return IngestedSymbol(symbol, 0, 0, len(raw), str(error))
    changed = store.save_bars(symbol, screened, provider.name)
    return IngestedSymbol(symbol, len(screened.good), changed, len(screened.rejected))
