"""An invented market as a source, so that the whole pipeline can run where the truth is known.

    market_data:
      provider: synthetic
      options: {kind: planted_drift, seed: 7, information_coefficient: 0.3}
      fundamentals: {provider: synthetic, options: {seed: 7}}

Nothing of it is market data: the store refuses to hold it beside a real source's.
"""

from collections.abc import Collection
from dataclasses import fields
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from signals_core.calendar import last_closed_session
from signals_core.errors import SettingsError
from signals_core.synthetic import Market, MarketModel, SymbolFacts, make_facts, make_market

FIRST_SESSION = "2012-01-03"
_MODEL_OPTIONS = {item.name for item in fields(MarketModel)}


class SyntheticProvider:
    """Bars and facts of `signals_core.synthetic`; every symbol that is asked for exists, unless `symbols` says which.

    Args:
        root: the project's folder; not used.
        kind: random_walk, stochastic_volatility or planted_drift.
        seed: of every draw.
        symbols: those that exist; None: any.
        start: of the paths, `YYYY-MM-DD`.
        end: they end before it; None: with the last session that has closed.
        index: the symbol that stands for the market; `sector` and `implied_volatility` likewise.
        calendar: of the exchange.
        model: any other field of `MarketModel`.

    Raises:
        SettingsError: an option is unknown or impossible.
    """

    name = "synthetic"

    def __init__(
        self, root: Path, kind: str = "random_walk", seed: int = 0, symbols: Collection[str] | None = None,
        start: str = FIRST_SESSION, end: str | None = None, index: str = "SPY", sector: str = "XLK",
        implied_volatility: str = "^VIX", calendar: str = "XNYS", **model: Any,
    ) -> None:  # fmt: skip
        del root  # everything is invented
        unknown = sorted(set(model) - _MODEL_OPTIONS)
        if unknown:
            known = ", ".join(sorted(_MODEL_OPTIONS | {"seed", "symbols", "start", "end"}))
            raise SettingsError(f"synthetic market: there is no option {', '.join(unknown)}; there are {known}")
        self._model = MarketModel(kind=kind, **model)  # type: ignore[arg-type]
        self._seed, self._calendar = seed, calendar
        self._symbols = None if symbols is None else frozenset(symbols)
        self._start, self._end = (_date(start), None if end is None else _date(end))
        self._instruments = {
            index: "index_bars", sector: "sector_bars", implied_volatility: "implied_volatility_bars",
        }  # fmt: skip

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """All bars of `symbol`; None if the market has no such symbol."""
        if symbol in self._instruments:
            bars = getattr(self._any_market, self._instruments[symbol])
        elif self._exists(symbol):
            bars = self._market(symbol).bars[symbol]
        else:
            return None
        return bars.reset_index()

    def fetch_fundamentals(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """All filings of `symbol`; None if the market has no such symbol."""
        facts = self._facts(symbol)
        return facts.fundamentals if facts else None

    def fetch_insider_transactions(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """All trades of `symbol`'s insiders; None if the market has no such symbol."""
        facts = self._facts(symbol)
        return facts.insider_transactions if facts else None

    def fetch_short_interest(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """All short interest of `symbol`; None if the market has no such symbol."""
        facts = self._facts(symbol)
        return facts.short_interest if facts else None

    def _exists(self, symbol: str) -> bool:
        return symbol not in self._instruments and (self._symbols is None or symbol in self._symbols)

    def _market(self, symbol: str) -> Market:
        # A path depends on seed and name only, so that one symbol at a time is the same market.
        return make_market([symbol], self._start, self._until, self._model, self._seed, self._calendar)

    @cached_property
    def _any_market(self) -> Market:
        return self._market("ANY")

    def _facts(self, symbol: str) -> SymbolFacts | None:
        if not self._exists(symbol):
            return None
        sessions = pd.DatetimeIndex(self._any_market.index_bars.index)
        return make_facts(symbol, sessions, self._seed, self._calendar)

    @property
    def _until(self) -> date:
        if self._end is not None:
            return self._end
        return (pd.Timestamp(last_closed_session(self._calendar, datetime.now(UTC))) + pd.Timedelta(days=1)).date()


def _date(value: str | date) -> date:
    try:
        return pd.Timestamp(value).date()
    except ValueError as error:
        raise SettingsError(f"synthetic market: {value!r} is no date; write YYYY-MM-DD") from error
