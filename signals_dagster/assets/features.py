"""The five feature categories and the matrix that joins them."""

from datetime import date, timedelta

import dagster as dg
import pandas as pd

from signals_core import steps
from signals_core.calendar import sessions_between
from signals_core.feature_store import BuiltFeatures
from signals_core.features.catalog import Category
from signals_core.features.profile import distributions, profile
from signals_core.provenance import source_digest
from signals_core.workspace import Workspace
from signals_dagster.assets.market_data import bars, fundamentals, insider_transactions, reference_bars, short_interest
from signals_dagster.metadata import OWNERS, materialized, picture, table
from signals_dagster.partitions import PARTITIONS, SymbolSpan, date_span, symbol_span
from signals_dagster.resources import WorkspaceResource

_CODE = source_digest("signals_core.features")
_DESCRIPTIONS: dict[Category, str] = {
    "technical": "Momentum, trend, volatility, volume and patterns of the symbol's own bars.",
    "fundamental": "Valuation, quality and growth from filings as known at each close.",
    "cross_asset": "Correlation and relative strength against market and sector, and implied volatility.",
    "alternative": "Open-market insider trades and short interest, as published.",
    "temporal": "The position of the session in the calendar.",
}

_FACTS: dict[Category, list[dg.AssetsDefinition]] = {
    "fundamental": [fundamentals],
    "cross_asset": [reference_bars],
    "alternative": [fundamentals, insider_transactions, short_interest],
}

# The sector's median is of other symbols' fundamentals and prices.
_BARS: dict[Category, dg.AssetDep] = {"fundamental": dg.AssetDep(bars, partition_mapping=PARTITIONS.peers)}


def _category_asset(category: Category) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{category}_features",
        deps=[_BARS.get(category, bars), *_FACTS.get(category, [])],
        partitions_def=PARTITIONS.symbol_date,
        group_name="features",
        owners=OWNERS,
        kinds={"parquet", "pandas"},
        code_version=_CODE,
        description=f"{_DESCRIPTIONS[category]} Point in time: row t uses only what was knowable at the close of t. "
        "A month whose inputs, settings and code have not changed is not computed again.",
    )
    def features(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
        span = symbol_span(context, PARTITIONS.symbol_date)
        built = steps.build_category(workspace.open(), category, _with_bars(workspace, span), span.start, span.end)
        return _described(context, workspace, span, built)

    return features


technical_features, fundamental_features, cross_asset_features, alternative_features, temporal_features = (
    _category_asset(category) for category in _DESCRIPTIONS
)
CATEGORY_ASSETS = [
    technical_features,
    fundamental_features,
    cross_asset_features,
    alternative_features,
    temporal_features,
]


@dg.asset(
    deps=CATEGORY_ASSETS,
    partitions_def=PARTITIONS.symbol_date,
    group_name="features",
    owners=OWNERS,
    kinds={"parquet", "pandas"},
    code_version=_CODE,
    description="All features of a symbol side by side, as models are trained on and predict from.",
)
def feature_matrix(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The five categories joined."""
    span = symbol_span(context, PARTITIONS.symbol_date)
    built = steps.build_matrix(workspace.open(), _with_bars(workspace, span), span.start, span.end)
    return _described(context, workspace, span, built)


def _with_bars(workspace: WorkspaceResource, span: SymbolSpan) -> list[str]:
    return workspace.open().covered(span.symbols)


def _sessions(opened: Workspace, start: date, end: date) -> int:
    """Sessions of start <= date < end that have closed."""
    until = min(end, opened.last_session + timedelta(days=1))
    return len(sessions_between(opened.settings.exchange.calendar, start, until))


def _described(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, span: SymbolSpan, built: list[BuiltFeatures]
) -> dg.MaterializeResult:
    opened = workspace.open()
    frames = {item.symbol: item.frame for item in built}
    by_key = {}
    for key in span.keys:
        start, end = date_span(PARTITIONS.symbol_date, key)
        frame = frames.get(key.keys_by_dimension["symbol"])
        rows = None if frame is None else frame[(frame.index >= str(start)) & (frame.index < str(end))]
        by_key[str(key)] = {
            "dagster/row_count": 0 if rows is None else len(rows),
            "missing_share": float(rows.isna().to_numpy().mean()) if rows is not None and len(rows) else 1.0,
            "coverage": 0.0 if rows is None else len(rows) / max(_sessions(opened, start, end), 1),
        }
    title = f"{len(frames)} symbols" if len(frames) > 1 else ", ".join(frames)
    filled = {symbol: frame for symbol, frame in frames.items() if len(frame)}
    catalog = opened.features.catalog
    joined = pd.concat(filled, names=["symbol", "date"]) if filled else pd.DataFrame()
    columns = [
        {
            "feature": item.name,
            "missing": item.missing_share,
            "first valid": item.first_valid,
            "5 %": item.low,
            "median": item.median,
            "95 %": item.high,
            "unit": catalog[item.name].unit,
            "formula": catalog[item.name].formula,
        }
        for item in (profile(joined) if filled else [])
    ]
    months = sum(len(item.computed) for item in built)
    context.log.info(f"{months} symbol-months computed, {sum(len(i.reused) for i in built)} unchanged")
    common = {
        "distributions": picture(distributions(filled, f"{title}, {span.start} to {span.end}"), "Distributions"),
        "months_computed": months,
        "columns": table(columns),
    }
    return materialized(context, by_key, common)
