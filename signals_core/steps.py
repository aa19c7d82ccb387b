"""The steps of the main job up to validation: each brings one kind of artifact up to date, and no more.

A step compares the digest of what an artifact would be made from with the one stored beside it, and
computes only what is missing or stale; so repeating a step, or running it after a crash, is safe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from difflib import get_close_matches

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite, SettingsError
from signals_core.feature_store import BuiltFeatures
from signals_core.features.catalog import CATEGORIES, Category, Feature
from signals_core.features.leakage import LeakageReport, check_leakage
from signals_core.features.profile import FeatureProfile, profile
from signals_core.frame_store import Month, months_of
from signals_core.market_data.ingest import ingest_bars, ingest_facts, ingest_members
from signals_core.market_data.quality import QualityReport, quality_report
from signals_core.market_data.runs import IngestedSymbol, IngestionLog
from signals_core.market_data.screening import ScreenedFacts
from signals_core.market_data.tables import FACTS
from signals_core.ml.target import TARGET_COLUMNS, make_target
from signals_core.progress import track
from signals_core.provenance import prefix_digests, source_digest
from signals_core.workspace import UNIVERSE_NAME, Workspace

_KEPT_APART = {"demo", "synthetic"}
"""Sources whose bars must never lie beside a user's: a past that has ended, and one that never was."""


def ingest(workspace: Workspace, symbols: Sequence[str], full: bool = False) -> list[IngestedSymbol]:
    """Fetch the bars of `symbols` from their configured sources into the market store.

    Raises:
        SettingsError: bars of the demo or of an invented market and a user's would end up in one store.
    """
    providers = {symbol: workspace.bar_provider(symbol) for symbol in symbols}
    stored = IngestionLog(workspace.market.database).providers("bars")
    asked = {provider.name for provider in providers.values()}
    apart = (stored | asked) & _KEPT_APART
    if apart and len(stored | asked) > 1:
        raise SettingsError(
            f"market_data asks for bars of {', '.join(sorted(asked))}, and the store holds bars of "
            f"{', '.join(sorted(stored)) or 'no source yet'}: keep {' and '.join(sorted(apart))} apart from your own "
            "project; choose other folders with paths.data and paths.models, or empty these with `make clean`"
        )
    settings = workspace.settings
    loaded: dict[str, IngestedSymbol] = {}
    for provider in {id(provider): provider for provider in providers.values()}.values():
        own = [symbol for symbol in symbols if providers[symbol] is provider]
        outcomes = ingest_bars(
            workspace.market,
            provider,
            own,
            settings.exchange.calendar,
            workspace.now,
            accepted=settings.market_data.accepted,
            full=full,
        )
        loaded |= {outcome.symbol: outcome for outcome in outcomes}
    return [loaded[symbol] for symbol in symbols]


def ingest_dataset(workspace: Workspace, dataset: str) -> list[IngestedSymbol] | None:
    """Fetch a dataset's facts (a key of `FACTS`) of every ticker; None if the settings name no source."""
    provider, settings = workspace.fact_provider(dataset), workspace.settings
    if provider is None:
        return None
    return ingest_facts(
        workspace.market,
        dataset,
        provider,
        settings.universe.tickers,
        settings.exchange.calendar,
        workspace.now,
        date_only_lag_sessions=settings.market_data.date_only_lag_sessions,
    )


def ingest_membership(workspace: Workspace) -> tuple[int, ScreenedFacts] | None:
    """Load the intervals of `universe.membership`: how many changed, and the screened rows; None without a file."""
    path, settings = workspace.settings.universe.membership, workspace.settings
    if path is None:
        return None
    saved, screened = ingest_members(
        workspace.market, workspace.root / path, UNIVERSE_NAME, settings.exchange.calendar, workspace.now
    )
    return saved.changed, screened


def look_at_quality(workspace: Workspace) -> QualityReport:
    """The data-quality report of the universe, its reference instruments, and the datasets that have a source."""
    settings = workspace.settings
    datasets = [name for name in FACTS if getattr(settings.market_data, name).provider is not None]
    return quality_report(
        workspace.market, workspace.all_symbols(), workspace.last_session, settings.exchange.calendar, datasets
    )


def build_category(
    workspace: Workspace, category: Category, symbols: Sequence[str], start: date, end: date
) -> list[BuiltFeatures]:
    """Bring one feature category up to date for start <= date < end."""
    return [
        workspace.features.build_category(category, symbol, workspace.inputs(symbol), start, end)
        for symbol in track(f"{category} features", symbols, len(symbols))
    ]


def build_matrix(workspace: Workspace, symbols: Sequence[str], start: date, end: date) -> list[BuiltFeatures]:
    """Join the categories into the feature matrix for start <= date < end."""
    return [
        workspace.features.build_matrix(symbol, start, end) for symbol in track("feature matrix", symbols, len(symbols))
    ]


def search_for_leaks(
    workspace: Workspace, symbols: Sequence[str], cuts: int, seed: int, features: Sequence[str]
) -> LeakageReport:
    """Search features of some tickers (none named: of all that have bars) for lookahead.

    Raises:
        SettingsError: a feature or a ticker is not known.
    """
    covered = workspace.covered(workspace.settings.universe.tickers)
    unknown = [symbol for symbol in symbols if symbol not in covered]
    if unknown:
        raise SettingsError(f"no bars of a ticker {', '.join(unknown)}; there are {', '.join(covered) or 'none'}")
    chosen = tuple(symbols) or covered
    each = track("leakage", chosen, len(chosen))
    return check_leakage(workspace.features, workspace.provider, each, cuts, seed, features)


def describe_feature(workspace: Workspace, name: str) -> tuple[Feature, list[FeatureProfile]]:
    """A feature's definition, and what is stored of it for each ticker, under the ticker's name.

    Raises:
        SettingsError: it is not in the catalogue.
    """
    catalog = workspace.features.catalog
    if name not in catalog:
        near = ", ".join(get_close_matches(name, list(catalog), 3)) or "see `signals features list`"
        raise SettingsError(f"no feature is called {name!r}; did you mean: {near}")
    profiles = []
    for ticker in workspace.covered(workspace.settings.universe.tickers):
        stored = workspace.features.load(ticker, *data_span(workspace))
        if stored is not None:
            profiles += [replace(item, name=ticker) for item in profile(stored, [name])]
    return catalog[name], profiles


@dataclass(frozen=True)
class BuiltTarget:
    """Labels of one symbol in a span, as they are stored."""

    symbol: str
    frame: pd.DataFrame
    computed: tuple[Month, ...]


def build_target(workspace: Workspace, symbols: Sequence[str], start: date, end: date) -> list[BuiltTarget]:
    """Bring the labels up to date for start <= date < end.

    A month's labels depend on the bars up to `prediction_horizon` sessions (and one open) after it.
    """
    return [_build_target(workspace, symbol, start, end) for symbol in track("target", symbols, len(symbols))]


def _build_target(workspace: Workspace, symbol: str, start: date, end: date) -> BuiltTarget:
    wanted = target_digests(workspace, symbol, start, end)
    current = workspace.targets.bring_up_to_date(
        symbol, wanted, TARGET_COLUMNS, lambda _: make_target(workspace.bars(symbol), workspace.settings.ml)
    )
    first, last = current.frame.index.searchsorted([pd.Timestamp(start), pd.Timestamp(end)])
    return BuiltTarget(symbol, current.frame.iloc[first:last], current.computed)


def build_features_and_target(workspace: Workspace) -> Iterator[tuple[BuiltFeatures, BuiltTarget]]:
    """Bring the categories, the matrix and the labels of every ticker with bars up to date, one when asked for it.

    Returns:
        The matrix and the labels of each ticker from its first month that was not current; the last month of one
        that was. Memory does not grow with their number.

    Raises:
        MissingPrerequisite: no ticker has bars.
    """
    start, end = data_span(workspace)
    tickers = workspace.covered(workspace.settings.universe.tickers)
    return (_build_all(workspace, ticker, start, end) for ticker in track("features", tickers, len(tickers)))


def _build_all(workspace: Workspace, ticker: str, start: date, end: date) -> tuple[BuiltFeatures, BuiltTarget]:
    month = first_stale_month(workspace, ticker, start, end) or f"{end - timedelta(days=1):%Y-%m}"
    since = max(start, date(int(month[:4]), int(month[5:]), 1))
    store, inputs = workspace.features, workspace.inputs(ticker)
    for category in CATEGORIES:
        store.build_category(category, ticker, inputs, since, end)
    return store.build_matrix(ticker, since, end), _build_target(workspace, ticker, since, end)


def target_digests(workspace: Workspace, symbol: str, start: date, end: date) -> dict[Month, str]:
    """What each month's labels in start <= date < end must have been made from."""
    bars, ml = workspace.bars(symbol), workspace.settings.ml
    index = pd.DatetimeIndex(bars.index)
    months = months_of(index)
    inside = (index >= pd.Timestamp(start)) & (index < pd.Timestamp(end))
    names = list(dict.fromkeys(months[inside]))
    reach = max(ml.prediction_horizon, 2)
    lengths = [min(int(np.searchsorted(months, month, side="right")) + reach, len(bars)) for month in names]
    rule = (
        ml.prediction_horizon,
        ml.up_threshold,
        ml.down_threshold,
        source_digest("signals_core.ml.target"),
    )
    return dict(zip(names, prefix_digests(bars, lengths, *rule), strict=True))


def stale_months(workspace: Workspace, symbol: str, start: date, end: date) -> dict[str, set[Month]]:
    """The months in start <= date < end that are missing or made from other inputs, by feature category and `target`.

    A fact that arrives late or is restated concerns the categories that need it, from the month in which it
    was knowable; a bar, its own month and all later ones.
    """
    inputs = workspace.inputs(symbol)
    stored = workspace.features.stored_months(symbol)
    found: dict[str, set[Month]] = {}
    for category in CATEGORIES:
        wanted = workspace.features.category_digests(category, inputs, start, end)
        found[category] = {month for month, value in wanted.items() if stored[category].get(month) != value}
    labels = workspace.targets.digests(symbol)
    wanted = target_digests(workspace, symbol, start, end)
    found["target"] = {month for month, value in wanted.items() if labels.get(month) != value}
    return found


def first_stale_month(workspace: Workspace, symbol: str, start: date, end: date) -> Month | None:
    """The first month in start <= date < end whose features or labels are missing or stale; None if all are current."""
    by_kind = stale_months(workspace, symbol, start, end)
    stale = set().union(*by_kind.values())
    if not any(by_kind[category] for category in CATEGORIES):
        stored = workspace.features.stored_months(symbol)["matrix"]
        joined = workspace.features.matrix_digests(symbol, start, end)
        stale |= {month for month, value in joined.items() if stored.get(month) != value}
    return min(stale, default=None)


def data_span(workspace: Workspace) -> tuple[date, date]:
    """The half-open span of dates that partitions and stored bars have in common.

    Raises:
        MissingPrerequisite: no ticker has bars.
    """
    tickers = workspace.covered(workspace.settings.universe.tickers)
    if not tickers:
        start = workspace.settings.partitions.start
        raise MissingPrerequisite(
            f"the market store has no bars of any ticker in {start}..{workspace.last_session}: run `signals ingest`"
        )
    last = min(max(c.last for c in workspace.market.coverage(tickers).values()), workspace.last_session)
    end = workspace.settings.partitions.end
    following = last + timedelta(days=1)
    return workspace.settings.partitions.start, min(following, end) if end else following


def last_day(workspace: Workspace) -> date:
    """The last date of `data_span`: the session that signals and drift reports are about.

    Raises:
        MissingPrerequisite: no ticker has bars.
    """
    return data_span(workspace)[1] - timedelta(days=1)


def known_until(workspace: Workspace) -> date:
    """The date before which every session is stored: today, if the bars reach the last session.

    A window whose test ends on a weekend is whole on that day, not only at the next bar.

    Raises:
        MissingPrerequisite: no ticker has bars.
    """
    end = data_span(workspace)[1]
    if end <= workspace.last_session:
        return end
    today, limit = workspace.now.date(), workspace.settings.partitions.end
    return max(end, min(today, limit) if limit else today)
