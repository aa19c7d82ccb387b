"""The data-quality report: what each symbol's data lack, how old they are, and what was refused and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from signals_core.calendar import exchange_calendar, to_sessions
from signals_core.market_data.runs import IngestionLog
from signals_core.market_data.store import MarketStore
from signals_core.market_data.tables import AVAILABLE_AT, FACTS


@dataclass(frozen=True)
class SymbolQuality:
    """One symbol's bars."""

    symbol: str
    sessions: int
    first: date | None
    last: date | None
    behind: int | None
    """Sessions since the last bar, up to the last that has closed."""
    missing: int
    """Sessions without a bar between the first and the last."""
    rejected: int
    restated: int
    largest_move: float | None
    """The largest move of the adjusted close from one bar to the next, as a share."""
    largest_move_on: date | None
    problem: str | None
    """Of the last load."""

    @property
    def complete(self) -> bool:
        """There are bars, up to the last session, with no session missing."""
        return self.sessions > 0 and self.behind == 0 and self.missing == 0


@dataclass(frozen=True)
class FactQuality:
    """One symbol's facts of one dataset."""

    dataset: str
    symbol: str
    facts: int
    latest: pd.Timestamp | None
    rejected: int
    problem: str | None


@dataclass(frozen=True)
class QualityReport:
    """Everything the store can say about its data at a session."""

    session: date
    bars: tuple[SymbolQuality, ...]
    facts: tuple[FactQuality, ...]
    reasons: dict[str, dict[str, int]]
    """By dataset, how many rows of the last loads were refused for each reason."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "session": self.session.isoformat(),
            "bars": [{**asdict(item), "complete": item.complete} for item in self.bars],
            "facts": [asdict(item) for item in self.facts],
            "reasons": self.reasons,
        }


def quality_report(
    store: MarketStore, symbols: Sequence[str], last_session: date, calendar: str, datasets: Sequence[str] = ()
) -> QualityReport:
    """Look at the bars of `symbols` and their facts in `datasets`, as stored."""
    sessions = to_sessions(exchange_calendar(calendar).sessions)
    log, restated = IngestionLog(store.database), store.restated("bars")
    problems = log.latest("bars")["problem"]
    refused = store.rejected("bars")
    counts = refused["symbol"].value_counts()
    bars = tuple(
        _symbol_quality(store, symbol, sessions, last_session, int(counts.get(symbol, 0)), restated, problems)
        for symbol in symbols
    )
    facts = tuple(_fact_quality(store, log, dataset, symbol) for dataset in datasets for symbol in symbols)
    reasons = {"bars": refused["reason"].value_counts().to_dict()}
    reasons |= {dataset: store.rejected(dataset)["reason"].value_counts().to_dict() for dataset in datasets}
    return QualityReport(last_session, bars, facts, reasons)


def _symbol_quality(
    store: MarketStore, symbol: str, sessions: pd.DatetimeIndex, last_session: date, rejected: int,
    restated: dict[str, int], problems: "pd.Series[Any]",
) -> SymbolQuality:  # fmt: skip
    bars = store.load_bars(symbol)
    bars = bars[bars.index <= pd.Timestamp(last_session)]
    problem = problems.get(symbol)
    rest: dict[str, Any] = {
        "rejected": rejected,
        "restated": restated.get(symbol, 0),
        "problem": problem if problem else None,
    }
    if bars.empty:
        return SymbolQuality(symbol, 0, None, None, None, 0, largest_move=None, largest_move_on=None, **rest)
    first, last = bars.index[0], bars.index[-1]
    end = sessions.searchsorted(pd.Timestamp(last_session), side="right")
    upto = sessions.searchsorted(last, side="right")
    expected = upto - sessions.searchsorted(first)
    moves = np.abs(np.diff(bars["close"]) / bars["close"].to_numpy()[:-1])
    widest = int(np.argmax(moves)) if len(moves) else None
    return SymbolQuality(
        symbol,
        len(bars),
        first.date(),
        last.date(),
        int(end - upto),
        int(expected - len(bars)),
        largest_move=None if widest is None else float(moves[widest]),
        largest_move_on=None if widest is None else bars.index[widest + 1].date(),
        **rest,
    )


def _fact_quality(store: MarketStore, log: IngestionLog, dataset: str, symbol: str) -> FactQuality:
    assert dataset in FACTS
    facts, outcomes = store.load_facts(dataset, symbol), log.latest(dataset, [symbol])
    problem = outcomes["problem"].get(symbol)
    latest = None if facts.empty else facts[AVAILABLE_AT].max()
    rejected = len(store.rejected(dataset, symbol))
    return FactQuality(dataset, symbol, len(facts), latest, rejected, problem if problem else None)
