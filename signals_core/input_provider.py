"""What the features of a symbol are computed from, read from the market store; each piece is read once."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes, to_sessions
from signals_core.errors import MissingPrerequisite
from signals_core.features.fundamental import RATIOS, FundamentalFeatureCalculator
from signals_core.features.inputs import FeatureInputs
from signals_core.features.sectors import SECTORS, chain_link, sector_medians, sector_of
from signals_core.market_data.store import MarketStore
from signals_core.settings import Settings

_CACHE_BYTES = 256 * 2**20

Membership = Callable[[str, pd.DatetimeIndex], np.ndarray]
"""Whether a ticker was a member of the universe on each session (n,)."""


class InputProvider:
    """The `DataProvider` of a project: bars adjusted forward, facts, and the sector, as known at one moment.

    Adjusted forward: a later split or dividend leaves every earlier row, and what was made of it, as it was.
    What was read is kept, up to `_CACHE_BYTES`, until the store changes.
    """

    def __init__(
        self,
        market: MarketStore,
        settings: Settings,
        classification: Mapping[str, pd.DataFrame],
        membership: Membership,
        now: datetime,
        last_session: date,
    ) -> None:
        """`classification`: by symbol, as from `features.sectors.read_sectors`."""
        self._market = market
        self._settings = settings
        self._classification = classification
        self._membership = membership
        self._now = now
        self._last_session = last_session
        self._state = market.state()
        self._bars: OrderedDict[str, pd.DataFrame] = OrderedDict()
        self._facts: OrderedDict[tuple[str, str], pd.DataFrame] = OrderedDict()
        self._medians: dict[str, pd.DataFrame] = {}
        ages = settings.features.max_age_days
        max_age = timedelta(days=ages["fundamentals"]) if "fundamentals" in ages else None
        self._fundamental = FundamentalFeatureCalculator(settings.exchange.calendar, max_age)

    def inputs(self, symbol: str) -> FeatureInputs:
        """All that is known of `symbol`.

        Raises:
            MissingPrerequisite: the store has no bars of the symbol.
        """
        self._forget_if_changed()
        known = self._classification.get(symbol)
        return self._inputs(symbol, self._bars_of(symbol), known, self._facts_of, self._medians_of)

    def inputs_at(self, symbol: str, session: date) -> FeatureInputs:
        """All that was knowable at the close of `session`; the sector's medians are made again from that alone."""
        self._forget_if_changed()
        day = to_sessions([session])
        (close,) = session_closes(self._settings.exchange.calendar, day)

        def bars_until(other: str) -> pd.DataFrame:
            return self._bars_of(other).loc[: day[0]]

        def facts_until(dataset: str, other: str) -> pd.DataFrame:
            facts = self._facts_of(dataset, other)
            return facts[facts["available_at"] <= close]

        def medians_until(sector: str) -> pd.DataFrame | None:
            return self._make_medians(sector, bars_until, facts_until)

        classification = self._classification.get(symbol)
        known = None if classification is None else classification.loc[: day[0]]
        whole = self._inputs(
            symbol, self._bars_of(symbol), None if known is None or known.empty else known, facts_until, medians_until
        )
        return whole.until(day[0], close)

    def bars(self, symbol: str) -> pd.DataFrame:
        """Adjusted bars of `symbol` from the partitions' start to the last session; empty if there are none."""
        self._forget_if_changed()
        return self._bars_of(symbol)

    def _bars_of(self, symbol: str) -> pd.DataFrame:
        if symbol not in self._bars:
            start, end = self._settings.partitions.start, self._last_session + timedelta(days=1)
            self._bars[symbol] = self._market.load_bars(symbol, start, end, as_of=self._now, adjustment="forward")
            _shrink(self._bars)
        self._bars.move_to_end(symbol)
        return self._bars[symbol]

    def _inputs(
        self,
        symbol: str,
        bars: pd.DataFrame,
        classification: pd.DataFrame | None,
        facts: Callable[[str, str], pd.DataFrame],
        medians: Callable[[str], pd.DataFrame | None],
    ) -> FeatureInputs:
        if bars.empty:
            raise MissingPrerequisite(f"no bars of {symbol} up to {self._last_session}: run `signals ingest`")
        reference = self._settings.universe.reference
        return FeatureInputs(
            bars,
            spy_bars=self._instrument(reference.spy),
            vix_bars=self._instrument(reference.vix),
            sector_bars=self._sector_bars(classification),
            fundamentals=facts("fundamentals", symbol),
            sector_fundamentals=self._sector_fundamentals(classification, bars, medians),
            insider_transactions=facts("insider_transactions", symbol),
            short_interest=facts("short_interest", symbol),
            sectors=classification,
        )

    def _instrument(self, symbol: str) -> pd.DataFrame | None:
        bars = self._bars_of(symbol)
        return None if bars.empty else bars

    def _sector_bars(self, classification: pd.DataFrame | None) -> pd.DataFrame | None:
        """The instrument of the symbol's sector; where the sector changed, each in its time, linked by their returns.

        The general instrument stands for the sector until the symbol's first row, as for a symbol without one.
        """
        reference = self._settings.universe.reference
        if classification is None or not reference.sectors:
            return self._instrument(reference.sector)
        instruments: Mapping[str, str] = {str(sector): name for sector, name in reference.sectors.items()}
        parts = [(pd.Timestamp.min, self._instrument(reference.sector))]
        for start, name in classification["sector"].items():
            parts.append((start, self._instrument(instruments[name]) if name in instruments else None))
        return chain_link(parts)

    def _sector_fundamentals(
        self,
        classification: pd.DataFrame | None,
        bars: pd.DataFrame,
        medians: Callable[[str], pd.DataFrame | None],
    ) -> pd.DataFrame | None:
        """The medians of the sector that the symbol belonged to on each day."""
        if classification is None:
            return None
        number = sector_of(classification, pd.DatetimeIndex(bars.index))
        found = None
        for at in np.unique(number[number >= 0]):
            of_sector = medians(SECTORS[at])
            if of_sector is None:
                continue
            rows = of_sector.reindex(bars.index[number == at])
            found = rows if found is None else pd.concat([found, rows])
        return None if found is None else found.sort_index()

    def _medians_of(self, sector: str) -> pd.DataFrame | None:
        if sector not in self._medians:
            made = self._make_medians(sector, self._bars_of, self._facts_of)
            self._medians[sector] = pd.DataFrame() if made is None else made
        return None if self._medians[sector].empty else self._medians[sector]

    def _make_medians(
        self, sector: str, bars_of: Callable[[str], pd.DataFrame], facts_of: Callable[[str, str], pd.DataFrame]
    ) -> pd.DataFrame | None:
        values, members, number = {}, {}, SECTORS.index(sector)
        for peer in self._peers(sector):
            bars, facts = bars_of(peer), facts_of("fundamentals", peer)
            if bars.empty or facts.empty:
                continue
            sessions = pd.DatetimeIndex(bars.index)
            values[peer] = self._fundamental.ratios(FeatureInputs(bars, fundamentals=facts))
            of_sector = sector_of(self._classification[peer], sessions) == number
            members[peer] = of_sector & self._membership(peer, sessions)
        return sector_medians(values, members, RATIOS) if values else None

    def _peers(self, sector: str) -> Sequence[str]:
        known = self._classification
        tickers = self._settings.universe.tickers
        return [t for t in tickers if t in known and (known[t]["sector"] == sector).any()]

    def _facts_of(self, dataset: str, symbol: str) -> pd.DataFrame:
        key = (dataset, symbol)
        if key not in self._facts:
            self._facts[key] = self._market.load_facts(dataset, symbol, self._now)
            _shrink(self._facts)
        self._facts.move_to_end(key)
        return self._facts[key]

    def _forget_if_changed(self) -> None:
        state = self._market.state()
        if state != self._state:
            self._state = state
            self._bars.clear()
            self._facts.clear()
            self._medians.clear()


def _shrink(kept: "OrderedDict[str, pd.DataFrame] | OrderedDict[tuple[str, str], pd.DataFrame]") -> None:
    """Let go of what was used longest ago, beyond `_CACHE_BYTES`."""
    size = sum(frame.size for frame in kept.values()) * np.dtype("float64").itemsize
    while size > _CACHE_BYTES and len(kept) > 1:
        _, gone = kept.popitem(last=False)
        size -= gone.size * np.dtype("float64").itemsize
