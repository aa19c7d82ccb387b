"""From a source into the store, symbol by symbol: one symbol's failure does not stop the others."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from signals_core.calendar import exchange_calendar, last_closed_session, to_sessions
from signals_core.errors import MissingPrerequisite, ServiceDown, SettingsError, SignalsError
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.continuity import screen_series
from signals_core.market_data.providers.base import BarProvider
from signals_core.market_data.runs import IngestedSymbol, IngestionLog
from signals_core.market_data.screening import ScreenedFacts, check_symbol, screen_bars, screen_facts, screen_members
from signals_core.market_data.store import MarketStore
from signals_core.market_data.tables import AVAILABLE_AT
from signals_core.market_data.versions import Saved
from signals_core.progress import track

_LOOK_BACK = timedelta(days=15)
"""Corrections of the last days are asked for with what is new."""
_FETCH = {
    "fundamentals": "fetch_fundamentals",
    "insider_transactions": "fetch_insider_transactions",
    "short_interest": "fetch_short_interest",
}


def ingest_bars(
    store: MarketStore, provider: BarProvider, symbols: Sequence[str], calendar: str, now: datetime | None = None,
    *, accepted: Collection[str] = (), full: bool = False,
) -> list[IngestedSymbol]:  # fmt: skip
    """Fetch, screen and store the bars of each symbol. Repeating it changes nothing.

    Args:
        store: where they go.
        provider: asked for what is new and the last 15 days; for everything of a new symbol.
        symbols: what to ask for.
        calendar: of the exchange.
        now: the present moment (default: the wall clock); a bar of a session that has not closed is left out.
        accepted: breaks found genuine, as "SYMBOL YYYY-MM-DD".
        full: ask for everything of every symbol.
    """
    moment = now or datetime.now(UTC)
    sessions = to_sessions(exchange_calendar(calendar).sessions)
    last = last_closed_session(calendar, moment)

    def load(symbol: str, run: int) -> IngestedSymbol:
        stored = store.load_bars(symbol, adjustment="none")
        since = None if full or stored.empty else (stored.index[-1] - _LOOK_BACK).date()
        raw = provider.fetch_bars(symbol, since) if since else provider.fetch_bars(symbol)
        if raw is None:
            return IngestedSymbol(symbol, problem=f"{provider.name} has no bars of {symbol}")
        genuine = {entry.split()[-1] for entry in accepted if entry.split()[0] == symbol}
        screened = screen_series(screen_bars(raw, symbol, sessions, last), sessions, stored, genuine)
        saved = store.save_bars(symbol, screened, moment, run)
        return _outcome(symbol, len(screened.good), saved, len(screened.rejected))

    return _each(store, "bars", provider, symbols, load)


def ingest_facts(
    store: MarketStore, dataset: str, provider: Any, symbols: Sequence[str], calendar: str,
    now: datetime | None = None, *, date_only_lag_sessions: int = 0,
) -> list[IngestedSymbol]:  # fmt: skip
    """Fetch, screen and store the facts of each symbol (`fundamentals`, `insider_transactions`, `short_interest`).

    The provider is asked for what became available since 15 days before the last fact stored.
    """
    moment, fetch = now or datetime.now(UTC), getattr(provider, _FETCH[dataset])

    def load(symbol: str, run: int) -> IngestedSymbol:
        stored = store.load_facts(dataset, symbol)[AVAILABLE_AT]
        since = None if stored.empty else (stored.max() - _LOOK_BACK).to_pydatetime().replace(tzinfo=UTC)
        raw = fetch(symbol, since)
        if raw is None:
            return IngestedSymbol(symbol, problem=f"{provider.name} has no {dataset} of {symbol}")
        screened = screen_facts(dataset, raw, symbol, calendar, date_only_lag_sessions)
        saved = store.save_facts(dataset, symbol, screened.good, moment, run, screened.rejected)
        return _outcome(symbol, len(screened.good), saved, len(screened.rejected))

    return _each(store, dataset, provider, symbols, load)


def ingest_members(
    store: MarketStore, path: Path, universe: str, calendar: str, now: datetime | None = None
) -> tuple[Saved, ScreenedFacts]:
    """Load the membership intervals of a CSV file: columns symbol (or ticker), start (start_date), end (end_date).

    Raises:
        MissingPrerequisite: there is no such file.
        DataError: a column is missing.
    """
    if not path.is_file():
        raise MissingPrerequisite(f"universe membership: {path} does not exist; see universe.membership")
    # The ticker NA is a company, not a missing value.
    screened = screen_members(pd.read_csv(path, dtype=str, keep_default_na=False))
    began = _since_known(screened.good["valid_from"], calendar)
    facts = screened.good.assign(universe=universe, **{AVAILABLE_AT: began})
    return store.save("universe_membership", facts, now or datetime.now(UTC)), screened


def _since_known(days: pd.Series, calendar: str) -> pd.Series:
    first = to_sessions(exchange_calendar(calendar).sessions)[0]
    return pd.Series(close_of_date(days.clip(lower=first), calendar), index=days.index)


def _each(
    store: MarketStore, dataset: str, provider: Any, symbols: Sequence[str], load: Callable[[str, int], IngestedSymbol]
) -> list[IngestedSymbol]:
    log = IngestionLog(store.database)
    run, done = log.begin(dataset, provider.name, resume=getattr(provider, "resumable", False))
    outcomes = []
    for symbol in track(f"ingest {dataset}", symbols, len(symbols)):
        if symbol in done:
            outcomes.append(IngestedSymbol(symbol))
            continue
        outcome = _guarded(load, symbol, run, provider.name)
        log.record(run, outcome)
        outcomes.append(outcome)
    log.finish(run)
    return outcomes


def _guarded(load: Callable[[str, int], IngestedSymbol], symbol: str, run: int, provider: str) -> IngestedSymbol:
    try:
        return load(check_symbol(symbol), run)
    except (SettingsError, MissingPrerequisite, ServiceDown):
        raise  # wrong for every symbol
    except SignalsError as error:
        return IngestedSymbol(symbol, problem=str(error))
    # A source is anybody's code: whatever it raises is reported as this symbol's problem.
    except Exception as error:  # noqa: BLE001
        return IngestedSymbol(symbol, problem=f"{provider} cannot read {symbol}: {type(error).__name__}: {error}")


def _outcome(symbol: str, rows: int, saved: Saved, rejected: int) -> IngestedSymbol:
    return IngestedSymbol(symbol, rows, saved.new, saved.restated, saved.withdrawn, rejected)
