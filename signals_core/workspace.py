"""Workspace: the stores of one project, opened from its settings when they are first used."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from signals_core import clock
from signals_core.calendar import last_closed_session, sessions_between
from signals_core.errors import MissingPrerequisite, NoRows
from signals_core.feature_store import FeatureStore
from signals_core.features.custom import load_features
from signals_core.features.inputs import FeatureInputs
from signals_core.features.sectors import read_sectors, sector_at
from signals_core.frame_store import FrameStore
from signals_core.input_provider import InputProvider
from signals_core.market_data.store import MarketStore
from signals_core.settings import Scope, Settings, SourceSettings
from signals_core.settings_loading import LoadedSettings

UNIVERSE_NAME = "universe"
"""Of the project's own membership intervals in the store."""

if TYPE_CHECKING:
    from redis import Redis

    from signals_core.alerts import AlertManager
    from signals_core.embedded_redis import EmbeddedRedis
    from signals_core.events import EventStream
    from signals_core.market_data.providers.base import BarProvider
    from signals_core.ml.registry import ModelRegistry
    from signals_core.ml.window_store import WindowStore


@dataclass(frozen=True)
class Panel:
    """Features and target of a scope's symbols, both with the index (symbol, date)."""

    features: pd.DataFrame
    target: pd.DataFrame


class Workspace:
    """Every store under the project's root; close it, or use it as a context manager."""

    def __init__(self, loaded: LoadedSettings) -> None:
        self.loaded = loaded
        self.settings: Settings = loaded.settings
        self.root = loaded.root
        self._provider: tuple[date, InputProvider] | None = None
        self._memberships: pd.DataFrame | None = None
        self._providers: dict[tuple[str, str, str], Any] = {}
        self._embedded_redis: EmbeddedRedis | None = None

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release connections, and the embedded Redis if nobody else uses it."""
        if "market" in self.__dict__:
            self.market.close()
        self._provider = None
        if self._embedded_redis is not None:
            self._embedded_redis.close()
        for name in ("market", "redis", "registry"):
            self.__dict__.pop(name, None)

    @property
    def data(self) -> Path:
        """The folder of everything that is not a model."""
        return self.root / self.settings.paths.data

    @property
    def models(self) -> Path:
        """The folder of model bundles and the registry's journal."""
        return self.root / self.settings.paths.models

    @property
    def now(self) -> datetime:
        """The present moment, in the exchange's time zone."""
        return clock.now(self.settings)

    @property
    def last_session(self) -> date:
        """The latest session that has closed; nothing later is ever read."""
        return last_closed_session(self.settings.exchange.calendar, self.now)

    def require_session(self, day: date) -> None:
        """Go on only if the exchange was open on `day`, and has closed.

        Raises:
            MissingPrerequisite: it was not, or has not yet.
        """
        calendar = self.settings.exchange.calendar
        if sessions_between(calendar, day, day + timedelta(days=1)).empty:
            raise MissingPrerequisite(f"{day} is no session of {calendar}: name a day on which the exchange was open")
        if day > self.last_session:
            raise MissingPrerequisite(f"the session of {day} has not closed yet: the last is {self.last_session}")

    @cached_property
    def market(self) -> MarketStore:
        """Bars and facts."""
        url, calendar = self.settings.stores.market_url, self.settings.exchange.calendar
        return MarketStore(url, calendar) if url else MarketStore.embedded(self.data / "market.sqlite", calendar)

    def bar_provider(self, symbol: str) -> "BarProvider":
        """The source of a symbol's bars: `market_data.overrides`, or `market_data.provider`."""
        chosen = self.settings.market_data
        other = chosen.overrides.get(symbol)
        if other is not None and other.provider is not None:
            return self._open_provider(other.provider, other.options, "fetch_bars")
        return self._open_provider(chosen.provider, chosen.options, "fetch_bars")

    def fact_provider(self, dataset: str) -> Any:
        """The source of a dataset's facts; None if the settings name none."""
        chosen: SourceSettings = getattr(self.settings.market_data, dataset)
        if chosen.provider is None:
            return None
        return self._open_provider(chosen.provider, chosen.options, f"fetch_{dataset}")

    def _open_provider(self, name: str, options: dict[str, Any], method: str) -> Any:
        from signals_core.market_data.providers.base import open_provider

        key = (name, repr(sorted(options.items())), method)
        if key not in self._providers:
            self._providers[key] = open_provider(name, options, self.root, method)
        return self._providers[key]

    @cached_property
    def features(self) -> FeatureStore:
        """The feature store, with the features of `features.modules`.

        Raises:
            SettingsError: a module cannot be imported or defines no feature.
        """
        chosen = self.settings.features
        custom = load_features(chosen.modules, self.root)
        ages = {str(name): days for name, days in chosen.max_age_days.items()}
        return FeatureStore(self.data / "features", self.settings.exchange.calendar, custom, ages)

    @cached_property
    def targets(self) -> FrameStore:
        """Labels, by symbol and month."""
        return FrameStore(self.data / "target")

    @cached_property
    def windows(self) -> "WindowStore":
        """Results of validation windows."""
        from signals_core.ml.window_store import WindowStore

        return WindowStore(self.data / "validation")

    @cached_property
    def redis(self) -> "Redis":
        """Redis by URL, or the embedded one.

        Raises:
            ServiceDown: it does not answer.
        """
        if self.settings.stores.redis_url:
            from signals_core.ml.registry import connect_redis

            return connect_redis(self.settings.stores.redis_url)
        from signals_core.embedded_redis import EmbeddedRedis

        self._embedded_redis = EmbeddedRedis(self.data / "redis")
        return self._embedded_redis.connect()

    @cached_property
    def registry(self) -> "ModelRegistry":
        """Model versions and which of them is in service; what serves is read from disk and needs no Redis."""
        from signals_core.ml.registry import ModelRegistry

        return ModelRegistry(self.models, lambda: self.redis, lambda: self.now)

    @cached_property
    def events(self) -> "EventStream":
        """What other programs are told; it waits on disk while Redis is down."""
        from signals_core.events import EventStream

        limit = self.settings.monitoring.events_max_length
        return EventStream(lambda: self.redis, self.data / "events" / "waiting.jsonl", limit, lambda: self.now)

    @cached_property
    def alerts(self) -> "AlertManager":
        """What people are told."""
        from signals_core.alerts import AlertManager

        return AlertManager(self.settings.alerts, self.data / "alerts", self.events)

    @property
    def provider(self) -> InputProvider:
        """What features are computed from; made anew when another session has closed."""
        last_session = self.last_session
        if self._provider is None or self._provider[0] != last_session:
            made = InputProvider(
                self.market, self.settings, self.classification, self.membership, self.now, last_session
            )
            self._provider = (last_session, made)
        return self._provider[1]

    @cached_property
    def classification(self) -> dict[str, pd.DataFrame]:
        """The sector of each symbol over time, from `universe.sectors`; empty without it."""
        path = self.settings.universe.sectors
        return {} if path is None else read_sectors(self.root / path)

    def sectors_at(self, symbols: Sequence[str], day: date | pd.Timestamp) -> list[str | None]:
        """The sector of each symbol on a day, where it is known."""
        return [sector_at(self.classification.get(symbol), day) for symbol in symbols]

    def inputs(self, symbol: str) -> FeatureInputs:
        """All that is known of `symbol` at the last session.

        Raises:
            MissingPrerequisite: the store has no bars of the symbol.
        """
        return self.provider.inputs(symbol)

    def bars(self, symbol: str) -> pd.DataFrame:
        """Forward-adjusted bars of `symbol` from the partitions' start to the last session."""
        return self.provider.bars(symbol)

    def panel(self, scope: Scope, start: date, end: date) -> Panel:
        """The stored features and target of the scope's tickers, start <= date < end.

        A ticker's first `features.min_history_sessions` rows are left out: too little is known there.

        Raises:
            NoRows: no ticker has any in that span.
            MissingPrerequisite: features or target of the span are missing or stale.
        """
        features, targets = {}, {}
        for ticker in self.covered(self.settings.scope_tickers(scope)):
            usable = self._usable_sessions(ticker, start, end)
            if usable.empty:  # not listed, delisted, or its bar is late
                continue
            matrix = self.features.load(ticker, start, end, self.inputs(ticker))
            target = self.targets.load(ticker, start, end)
            if matrix is None or target is None:
                raise MissingPrerequisite(
                    f"{ticker}: features or target of {start}..{end} are missing or stale; run "
                    "`signals features`, or materialise the groups `features` and `target`"
                )
            matrix = matrix[matrix.index.isin(usable)]
            if len(matrix):
                features[ticker], targets[ticker] = matrix, target.reindex(matrix.index)
        if not features:
            raise NoRows(f"{scope}: no ticker has rows in {start}..{end}")
        return Panel(pd.concat(features, names=["symbol", "date"]), pd.concat(targets, names=["symbol", "date"]))

    def covered(self, tickers: Sequence[str]) -> list[str]:
        """Those of `tickers` that have bars between the partitions' start and the last session."""
        start, coverage = self.settings.partitions.start, self.market.coverage(tickers)
        return [
            t for t in tickers if t in coverage and coverage[t].last >= start and coverage[t].first <= self.last_session
        ]

    def _usable_sessions(self, ticker: str, start: date, end: date) -> pd.Index:
        """Sessions of the span with a bar and at least `features.min_history_sessions` bars before it."""
        index = self.bars(ticker).index[self.settings.features.min_history_sessions :]
        index = index[(index >= pd.Timestamp(start)) & (index < pd.Timestamp(end))]
        return index[self.membership(ticker, index)]

    def membership(self, ticker: str, sessions: pd.DatetimeIndex) -> np.ndarray:
        """Whether the ticker was a member of the universe on each session (n,); always, without `universe.membership`.

        Raises:
            MissingPrerequisite: the membership file has not been loaded.
        """
        if self.settings.universe.membership is None:
            return np.ones(len(sessions), dtype=bool)
        if self._memberships is None:
            self._memberships = self.market.memberships(UNIVERSE_NAME, self.now)
        if self._memberships.empty:
            raise MissingPrerequisite("universe.membership is set, but not loaded: run `signals ingest membership`")
        own = self._memberships[self._memberships["symbol"] == ticker]
        member = np.zeros(len(sessions), dtype=bool)
        for interval in own.itertuples(index=False):
            member |= (sessions >= interval.valid_from) & ~(sessions >= interval.valid_to)
        return member

    def reference_roles(self) -> dict[str, str]:
        """The instruments that features are measured against, by what they stand for."""
        reference = self.settings.universe.reference
        roles = {"spy": reference.spy, "sector": reference.sector, "vix": reference.vix}
        if self.settings.universe.sectors is not None:
            roles |= {f"sector {sector}": symbol for sector, symbol in reference.sectors.items()}
        return roles

    def reference_symbols(self) -> Sequence[str]:
        """Those instruments, each once."""
        return tuple(dict.fromkeys(self.reference_roles().values()))

    def all_symbols(self) -> list[str]:
        """Every symbol whose bars are stored: the tickers, then the reference instruments."""
        return [*self.settings.universe.tickers, *self.reference_symbols()]
