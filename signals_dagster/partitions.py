"""Partition definitions, and how the partitions of one asset depend on another's.

Keys read `date|symbol` and `date|scope`: Dagster sorts the two dimensions by name.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import cast

import dagster as dg
import pandas as pd

from signals_core.errors import SettingsError
from signals_core.features.sectors import read_sectors
from signals_core.ml.windows import all_windows
from signals_core.settings import Settings
from signals_core.settings_loading import LoadedSettings, load_settings

KEY_LIMIT = 100_000
"""Dagster's guidance per asset; loading a million keys takes 11 s and 1.9 GB."""

_GRAINS = {"day": ("0 0 * * 1-5", "D"), "month": ("0 0 1 * *", "M"), "year": ("0 0 1 1 *", "Y")}
_FORMAT = "%Y-%m-%d"


@dataclass(frozen=True)
class Partitions:
    """The partitions of every kind of asset."""

    symbol_date: dg.MultiPartitionsDefinition
    scope_window: dg.MultiPartitionsDefinition
    scope_week: dg.MultiPartitionsDefinition
    scope_day: dg.MultiPartitionsDefinition
    peers: dg.PartitionMapping | None
    """From a ticker to all of its sectors, whose median its fundamentals are compared with; None without sectors."""
    symbols_to_windows: dg.PartitionMapping
    symbols_to_weeks: dg.PartitionMapping
    symbols_to_days: dg.PartitionMapping
    windows_to_weeks: dg.PartitionMapping
    weeks_to_days: dg.PartitionMapping


def build_partitions(settings: Settings, sectors: Mapping[str, Collection[str]] | None = None) -> Partitions:
    """The partitions that settings ask for.

    Args:
        settings: of the project.
        sectors: every sector that each symbol ever belonged to.

    Raises:
        SettingsError: an asset would have more than `KEY_LIMIT` keys; says what to change.
    """
    tickers = dg.StaticPartitionsDefinition(list(settings.universe.tickers))
    scopes = dg.StaticPartitionsDefinition(list(settings.ml.scopes))
    dates, windows, weeks, days = (
        make(settings) for make in (_grain_partitions, _window_partitions, _week_partitions, _day_partitions)
    )
    _check_limit(
        "features",
        tickers,
        dates,
        "universe.tickers or a later partitions.start, or a coarser partitions.date_grain",
    )
    _check_limit("drift_report", scopes, days, "ml.scopes or a later partitions.start")
    train_windows = settings.validation.train_months // settings.validation.step_months
    test_windows = settings.validation.test_months // settings.validation.step_months
    train_weeks = -(-settings.ml.train_months * 31 // 7)
    return Partitions(
        symbol_date=dg.MultiPartitionsDefinition({"symbol": tickers, "date": dates}),
        scope_window=dg.MultiPartitionsDefinition({"scope": scopes, "date": windows}),
        scope_week=dg.MultiPartitionsDefinition({"scope": scopes, "date": weeks}),
        scope_day=dg.MultiPartitionsDefinition({"scope": scopes, "date": days}),
        peers=_peers(settings.universe.tickers, sectors) if sectors else None,
        symbols_to_windows=_from_symbols(settings, -train_windows, test_windows - 1),
        symbols_to_weeks=_from_symbols(settings, -train_weeks, 0),
        symbols_to_days=_from_symbols(settings, -settings.monitoring.window_sessions, 0),
        windows_to_weeks=dg.MultiPartitionMapping(
            {
                "scope": dg.DimensionPartitionMapping("scope", dg.IdentityPartitionMapping()),
                "date": dg.DimensionPartitionMapping("date", dg.AllPartitionMapping()),
            }
        ),
        # Shown as upstream: models of the two Sundays before a day, or, for the first, of the next. The one in
        # service may be older, if none has beaten it since.
        weeks_to_days=dg.MultiPartitionMapping(
            {
                "scope": dg.DimensionPartitionMapping("scope", dg.IdentityPartitionMapping()),
                "date": dg.DimensionPartitionMapping(
                    "date",
                    dg.TimeWindowPartitionMapping(
                        start_offset=-10, end_offset=1, allow_nonexistent_upstream_partitions=True
                    ),
                ),
            }
        ),
    )


@dataclass(frozen=True)
class SymbolSpan:
    """The rectangle of a run over symbols and dates."""

    symbols: tuple[str, ...]
    start: date
    end: date
    keys: tuple[dg.MultiPartitionKey, ...]


def keys_of(context: dg.AssetExecutionContext) -> list[dg.MultiPartitionKey]:
    """The run's partition keys in order of date, then of the other dimension."""
    return sorted((cast(dg.MultiPartitionKey, key) for key in context.partition_keys), key=str)


def symbol_span(context: dg.AssetExecutionContext, partitions: dg.MultiPartitionsDefinition) -> SymbolSpan:
    """What a run over `symbol_date` partitions covers, as start <= date < end."""
    keys = keys_of(context)
    spans = [date_span(partitions, key) for key in keys]
    wanted = {key.keys_by_dimension["symbol"] for key in keys}
    symbols = partitions.get_partitions_def_for_dimension("symbol").get_partition_keys()
    return SymbolSpan(
        tuple(symbol for symbol in symbols if symbol in wanted),
        min(start for start, _ in spans),
        max(end for _, end in spans),
        tuple(keys),
    )


def date_span(partitions: dg.MultiPartitionsDefinition, key: dg.MultiPartitionKey) -> tuple[date, date]:
    """The half-open span of dates of a key."""
    definition = cast(dg.TimeWindowPartitionsDefinition, partitions.get_partitions_def_for_dimension("date"))
    window = definition.time_window_for_partition_key(key.keys_by_dimension["date"])
    return window.start.date(), window.end.date()


def keys_of_day(partitions: dg.MultiPartitionsDefinition, day: date) -> tuple[str, str] | None:
    """The first and the last key of the partitions that a day belongs to; None if there is none."""
    definition = cast(dg.TimeWindowPartitionsDefinition, partitions.get_partitions_def_for_dimension("date"))
    at = day.isoformat()
    dates = [key for key in definition.get_partition_keys() if key <= at]
    if not dates or definition.time_window_for_partition_key(dates[-1]).end.date() <= day:
        return None
    symbols = partitions.get_partitions_def_for_dimension("symbol").get_partition_keys()
    return f"{dates[-1]}|{symbols[0]}", f"{dates[-1]}|{symbols[-1]}"


def range_tags(first: str, last: str) -> dict[str, str]:
    """Run tags that make one run of the rectangle between two keys."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _grain_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    cron, frequency = _GRAINS[settings.partitions.date_grain]
    start = pd.Period(settings.partitions.start, freq=frequency).start_time.date()
    end = settings.partitions.end
    if end is not None:
        last = pd.Period(end - timedelta(days=1), freq=frequency)
        end = (last + 1).start_time.date()
    return _time_windows(settings, cron, start, _after_friday(end) if frequency == "D" else end)


def _window_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    step, tests = settings.validation.step_months, settings.validation.test_months
    first = pd.Period(settings.partitions.start, freq="M") + settings.validation.train_months
    months = sorted({(first.month - 1 + step * i) % 12 + 1 for i in range(12 // step)})
    cron = f"0 0 1 {','.join(map(str, months))} *"
    end = settings.partitions.end
    if end is not None:
        whole = all_windows(settings, end)
        end = (pd.Period(whole[-1].test_start, freq="M") + step).start_time.date() if whole else end
    # A key appears once its whole test span has passed, not only its first step.
    return _time_windows(settings, cron, first.start_time.date(), end, end_offset=1 - tests // step)


def _week_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    end = settings.partitions.end
    if end is not None:
        end += timedelta(days=(6 - end.weekday()) % 7)  # the Sunday on or after: the week before it is whole
    return _time_windows(settings, "0 0 * * 0", settings.partitions.start, end)


def _day_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    end = _after_friday(settings.partitions.end)
    return _time_windows(settings, "0 0 * * 1-5", settings.partitions.start, end)


def _after_friday(end: date | None) -> date | None:
    """Monday instead of a weekend: the partition of Friday lasts until then."""
    return end + timedelta(days=7 - end.weekday()) if end is not None and end.weekday() >= 5 else end


def _time_windows(
    settings: Settings, cron: str, start: date, end: date | None, end_offset: int = 1
) -> dg.TimeWindowPartitionsDefinition:
    return dg.TimeWindowPartitionsDefinition(
        start=start.isoformat(),
        end=end.isoformat() if end else None,
        cron_schedule=cron,
        fmt=_FORMAT,
        timezone=settings.exchange.timezone,
        end_offset=0 if end else end_offset,
    )


def _peers(tickers: Sequence[str], sectors: Mapping[str, Collection[str]]) -> dg.PartitionMapping:
    of = {ticker: {ticker, *sectors.get(ticker, ())} for ticker in tickers}  # a ticker without a sector is its own peer
    peers = {ticker: [other for other in tickers if of[ticker] & of[other]] for ticker in tickers}
    return dg.MultiPartitionMapping(
        {
            "symbol": dg.DimensionPartitionMapping("symbol", dg.StaticPartitionMapping(peers)),
            "date": dg.DimensionPartitionMapping("date", dg.IdentityPartitionMapping()),
        }
    )


def _from_symbols(settings: Settings, start_offset: int, end_offset: int) -> dg.PartitionMapping:
    scopes: dict[str, Sequence[str]] = {
        ticker: [s for s in settings.ml.scopes if ticker in settings.scope_tickers(s)]
        for ticker in settings.universe.tickers
    }
    return dg.MultiPartitionMapping(
        {
            "symbol": dg.DimensionPartitionMapping("scope", dg.StaticPartitionMapping(scopes)),
            "date": dg.DimensionPartitionMapping(
                "date",
                dg.TimeWindowPartitionMapping(
                    start_offset=start_offset,
                    end_offset=end_offset,
                    allow_nonexistent_upstream_partitions=True,
                ),
            ),
        }
    )


def _check_limit(
    asset: str, first: dg.StaticPartitionsDefinition, dates: dg.TimeWindowPartitionsDefinition, remedy: str
) -> None:
    count = len(first.get_partition_keys()) * dates.get_num_partitions()
    if count > KEY_LIMIT:
        raise SettingsError(
            f"{asset} would have {count:,} partition keys, more than the {KEY_LIMIT:,} Dagster handles well: "
            f"choose fewer {remedy}"
        )


def _sectors(loaded: LoadedSettings) -> dict[str, Collection[str]]:
    path = loaded.settings.universe.sectors
    known = {} if path is None else read_sectors(loaded.root / path)
    return {symbol: set(classification["sector"]) for symbol, classification in known.items()}


_LOADED = load_settings()
SETTINGS = _LOADED.settings
PARTITIONS = build_partitions(SETTINGS, _sectors(_LOADED))
