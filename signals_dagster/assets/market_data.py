"""Daily bars: of the tickers by symbol and date, and of the instruments they are measured against."""

import dagster as dg

from signals_core import steps
from signals_core.errors import DataError
from signals_core.provenance import source_digest
from signals_dagster.metadata import OWNERS, materialized, table
from signals_dagster.partitions import PARTITIONS, date_span, symbol_span
from signals_dagster.resources import WorkspaceResource

_CODE = source_digest("signals_core.market_data")


@dg.asset(
    group_name="market_data",
    owners=OWNERS,
    kinds={"sql", "pandas"},
    code_version=_CODE,
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
    rows = [
        {
            "symbol": i.symbol,
            "bars": i.rows,
            "changed": i.changed,
            "rejected": i.rejected,
            "problem": i.problem,
        }
        for i in loaded
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(i.rows for i in loaded),
            "missing": len(missing),
            "loaded": table(rows),
        }
    )


@dg.asset(
    partitions_def=PARTITIONS.symbol_date,
    group_name="market_data",
    owners=OWNERS,
    kinds={"sql", "pandas"},
    code_version=_CODE,
    description="Daily bars as traded, with the factor that adjusts them for splits and dividends, screened row "
    "by row: what breaks a rule is kept apart with its reason, and the good rows go on.",
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
