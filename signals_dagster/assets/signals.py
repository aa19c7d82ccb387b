"""The signals of each scope and day."""

from datetime import date

import dagster as dg

from signals_core.provenance import source_digest
from signals_core.strategy.ml_strategy import CODE, session_signals
from signals_dagster.assets.features import feature_matrix
from signals_dagster.assets.model import calibrated_model
from signals_dagster.metadata import OWNERS, of_each_scope, table
from signals_dagster.partitions import PARTITIONS, keys_of
from signals_dagster.resources import WorkspaceResource


@dg.asset(
    deps=[
        dg.AssetDep(feature_matrix, partition_mapping=PARTITIONS.symbols_to_days),
        dg.AssetDep(calibrated_model, partition_mapping=PARTITIONS.weeks_to_days),
    ],
    partitions_def=PARTITIONS.scope_day,
    group_name="signals",
    owners=OWNERS,
    kinds={"parquet", "xgboost"},
    code_version=source_digest(*CODE),
    description="Calibrated probabilities of every symbol the scope serves, and LONG or SHORT where the confidence "
    "exceeds `ml.confidence_threshold`; otherwise the reason why not.",
)
def signals(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """What the model in service says."""

    def describe(scope: str, day: date) -> dict[str, object]:
        made = session_signals(workspace.open(), scope, day)
        rows = made.frame.drop(columns="date")
        if made.logged is not None:
            say = context.log.warning if made.logged.contradicted else context.log.info
            say(f"{scope} {day}: {made.logged}")
        return {
            "dagster/row_count": len(rows),
            "long": int((rows["direction"] == "LONG").sum()),
            "short": int((rows["direction"] == "SHORT").sum()),
            "strongest": float(rows["strength"].max()) if rows["strength"].notna().any() else 0.0,
            "signals": table([{str(n): v for n, v in row.items()} for row in rows.to_dict("records")]),
        }

    return of_each_scope(context, keys_of(context), describe)
