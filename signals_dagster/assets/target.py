"""The label: 5-day forward return as DOWN, FLAT or UP."""

import dagster as dg

from signals_core import steps
from signals_core.ml.target import CLASSES, class_shares
from signals_core.provenance import source_digest
from signals_dagster.assets.market_data import bars
from signals_dagster.metadata import OWNERS, materialized
from signals_dagster.partitions import PARTITIONS, date_span, symbol_span
from signals_dagster.resources import WorkspaceResource


@dg.asset(
    deps=[bars],
    partitions_def=PARTITIONS.symbol_date,
    group_name="target",
    owners=OWNERS,
    kinds={"parquet", "pandas"},
    code_version=source_digest("signals_core.ml.target"),
    description="Forward return over `ml.prediction_horizon` sessions against the thresholds, and the session at "
    "whose close each label became known. The last sessions have none yet.",
)
def target(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Labels of every bar."""
    opened = workspace.open()
    span = symbol_span(context, PARTITIONS.symbol_date)
    covered = opened.covered(span.symbols)
    built = {item.symbol: item for item in steps.build_target(opened, covered, span.start, span.end)}
    by_key = {}
    for key in span.keys:
        start, end = date_span(PARTITIONS.symbol_date, key)
        found = built.get(key.keys_by_dimension["symbol"])
        rows = None
        if found is not None and len(found.frame):
            rows = found.frame[(found.frame.index >= str(start)) & (found.frame.index < str(end))]
        shares = class_shares(rows["label"]) if rows is not None else [0.0] * len(CLASSES)
        by_key[str(key)] = {
            "dagster/row_count": 0 if rows is None else len(rows),
            **{f"share_{n.lower()}": float(s) for n, s in zip(CLASSES, shares, strict=True)},
        }
    return materialized(context, by_key, {"months_computed": sum(len(i.computed) for i in built.values())})
