"""Market data: bars by symbol and date, facts with the moment each became knowable, and their quality.

Facts have no partitions: a source is asked for everything new, and what arrives late counts where it was knowable.
"""

from datetime import timedelta
from typing import Any

import dagster as dg

from signals_core import steps
from signals_core.alerts.occasions import look_at_data
from signals_core.errors import DataError
from signals_core.market_data.runs import IngestedSymbol
from signals_core.provenance import source_digest
from signals_core.workspace import Workspace
from signals_dagster.metadata import OWNERS, materialized, table
from signals_dagster.partitions import PARTITIONS, date_span, symbol_span
from signals_dagster.resources import WorkspaceResource

_CODE = source_digest("signals_core.market_data")

# Longer than the longest weekend of the exchange, a fortnight's and a month's delay.
_FRESH_BARS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=5), warn_window=timedelta(days=4))
_FRESH_FILINGS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=15), warn_window=timedelta(days=8))
_FRESH_ALTERNATIVE = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=36), warn_window=timedelta(days=15))


@dg.asset(
    group_name="market_data",
    owners=OWNERS,
    kinds={"sql", "pandas"},
    code_version=_CODE,
    freshness_policy=_FRESH_BARS,
    description="Bars of the market index, the sector and the volatility index. An instrument the source "
    "does not have stays absent: features that need it are missing, not filled.",
)
def reference_bars(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The instruments that features are measured against."""
    opened = workspace.open()
    loaded = steps.ingest(opened, opened.reference_symbols())
    missing = [item.problem for item in loaded if item.problem]
    for problem in missing:
        context.log.warning(problem)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(i.rows for i in loaded),
            "missing": len(missing),
            "loaded": table([_row(item) for item in loaded]),
        }
    )


@dg.asset(
    partitions_def=PARTITIONS.symbol_date,
    group_name="market_data",
    owners=OWNERS,
    kinds={"sql", "pandas"},
    code_version=_CODE,
    freshness_policy=_FRESH_BARS,
    description="Daily bars as traded with splits and dividends, every version of each. Screened row by row and "
    "as a series: what breaks a rule is kept apart with its reason, and the good rows go on.",
)
def bars(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Bars of the tickers."""
    opened = workspace.open()
    span = symbol_span(context, PARTITIONS.symbol_date)
    loaded = {item.symbol: item for item in steps.ingest(opened, span.symbols)}
    problems = [item.problem for item in loaded.values() if item.problem]
    for problem in problems:
        context.log.warning(problem)
    if len(problems) == len(loaded):
        raise DataError("; ".join(p for p in problems if p))
    stored = {symbol: opened.market.load_bars(symbol) for symbol in span.symbols}
    by_key = {}
    for key in span.keys:
        symbol, (start, end) = key.keys_by_dimension["symbol"], date_span(PARTITIONS.symbol_date, key)
        rows = stored[symbol]
        rows = rows[(rows.index >= str(start)) & (rows.index < str(end))]
        by_key[str(key)] = {
            "dagster/row_count": len(rows),
            "last_close": float(rows["close"].iloc[-1]) if len(rows) else 0.0,
            "rejected_rows_of_symbol": loaded[symbol].rejected,
        }
    return materialized(context, by_key)


def _fact_asset(dataset: str, freshness: dg.FreshnessPolicy, description: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=dataset,
        group_name="market_data",
        owners=OWNERS,
        kinds={"sql", "pandas"},
        code_version=_CODE,
        freshness_policy=freshness,
        description=f"{description} Every version with the moment it became knowable; a restatement is a new one.",
    )
    def facts(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
        opened = workspace.open()
        loaded = steps.ingest_dataset(opened, dataset)
        if loaded is None:
            return dg.MaterializeResult(metadata={"dagster/row_count": 0, "source": f"none: market_data.{dataset}"})
        problems = [item.problem for item in loaded if item.problem]
        for problem in problems:
            context.log.warning(problem)
        if len(problems) == len(loaded):
            raise DataError("; ".join(problems))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(len(opened.market.load_facts(dataset, item.symbol)) for item in loaded),
                "new": sum(item.new for item in loaded),
                "restated": sum(item.restated for item in loaded),
                "rejected": sum(item.rejected for item in loaded),
                "problems": len(problems),
                "loaded": table([_row(item) for item in loaded]),
                "stale_features": table(_stale_features(opened)),
            }
        )

    return facts


fundamentals = _fact_asset("fundamentals", _FRESH_FILINGS, "Quarterly figures as filed.")
insider_transactions = _fact_asset("insider_transactions", _FRESH_ALTERNATIVE, "Insiders' transactions as filed.")
short_interest = _fact_asset("short_interest", _FRESH_ALTERNATIVE, "Short interest as published.")
FACT_ASSETS = [fundamentals, insider_transactions, short_interest]


@dg.asset(
    group_name="market_data",
    owners=OWNERS,
    kinds={"sql"},
    code_version=_CODE,
    description="Who was a member of the universe when, from `universe.membership`; without it every ticker always is.",
)
def universe_membership(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Membership intervals."""
    loaded = steps.ingest_membership(workspace.open())
    if loaded is None:
        return dg.MaterializeResult(metadata={"dagster/row_count": 0, "source": "none: universe.membership"})
    changed, screened = loaded
    rejected = screened.rejected.to_dict("records")
    return dg.MaterializeResult(
        metadata={"dagster/row_count": len(screened.good), "changed": changed, "rejected": table(rejected)}
    )


_QUALITY_CHECKS = {
    "bars_complete": "Every ticker has a bar of every session between its first and the last that has closed.",
    "nothing_refused": "The last loads refused no row.",
    "sources_answered": "The last loads had no problem with any symbol.",
}


@dg.asset(
    deps=[bars, reference_bars, *FACT_ASSETS],
    group_name="market_data",
    owners=OWNERS,
    kinds={"sql"},
    code_version=_CODE,
    description="What the stored data lack, how old they are, and what was refused and why.",
    check_specs=[
        dg.AssetCheckSpec(name, asset="data_quality", description=text) for name, text in _QUALITY_CHECKS.items()
    ],
)
def data_quality(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The data-quality report, with a check for each of its findings."""
    report = steps.look_at_quality(workspace.open())
    look_at_data(workspace.open(), report)
    gaps = [vars(item) for item in report.bars if not item.complete]
    refused = [{"dataset": d, "reason": r, "rows": n} for d, by in report.reasons.items() for r, n in by.items()]
    stated = [(item.symbol, item.problem) for item in report.bars]
    stated += [(f"{item.dataset} {item.symbol}", item.problem) for item in report.facts]
    problems = [{"of": name, "problem": problem} for name, problem in stated if problem]
    found: dict[str, list[dict[str, Any]]] = {
        "bars_complete": gaps,
        "nothing_refused": refused,
        "sources_answered": problems,
    }
    return dg.MaterializeResult(
        metadata={
            "session": str(report.session),
            "symbols": len(report.bars),
            "incomplete": len(gaps),
            "refused_rows": sum(sum(by.values()) for by in report.reasons.values()),
            "bars": table([vars(item) for item in report.bars]),
            "facts": table([vars(item) for item in report.facts]),
            "refused": table(refused),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=name,
                passed=not rows,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"found": table(rows)},
            )
            for name, rows in found.items()
        ],
    )


def _row(item: IngestedSymbol) -> dict[str, object]:
    return {**vars(item)}


def _stale_features(opened: Workspace) -> list[dict[str, object]]:
    """Which months of which features the facts now stored concern; the main job brings them up to date."""
    tickers = opened.covered(opened.settings.universe.tickers)
    if not tickers:
        return []
    start, end = steps.data_span(opened)
    rows = []
    for ticker in tickers:
        for kind, months in steps.stale_months(opened, ticker, start, end).items():
            if months:
                rows.append({"symbol": ticker, "kind": kind, "months": len(months), "from": min(months)})
    return rows
