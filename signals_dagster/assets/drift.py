"""The drift report of each scope and day."""

from dataclasses import asdict
from datetime import date

import dagster as dg

from signals_core import plots
from signals_core.drift_pages import Pages, write_pages
from signals_core.ml.drift_report import CODE, drift_report
from signals_core.ml.drift_store import DriftReport
from signals_core.provenance import source_digest
from signals_dagster.assets.features import feature_matrix
from signals_dagster.assets.model import calibrated_model
from signals_dagster.metadata import OWNERS, numbers_of, of_each_scope, picture, table
from signals_dagster.partitions import PARTITIONS, keys_of
from signals_dagster.resources import WorkspaceResource


@dg.asset(
    name="drift_report",
    deps=[
        dg.AssetDep(feature_matrix, partition_mapping=PARTITIONS.symbols_to_days),
        dg.AssetDep(calibrated_model, partition_mapping=PARTITIONS.weeks_to_days),
    ],
    partitions_def=PARTITIONS.scope_day,
    group_name="monitoring",
    owners=OWNERS,
    kinds={"json", "redis"},
    code_version=source_digest(*CODE),
    description="PSI of every feature's last sessions against the training reference of the model in service, beside "
    "what the feature's own past would show; broken feeds; realised accuracy and gain of matured predictions. A page "
    "for people is under data/reports; each report is an event on the Redis stream ml:drift:events.",
)
def drift_report_asset(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Has what the model sees changed?"""

    def describe(scope: str, day: date) -> dict[str, object]:
        opened = workspace.open()
        report, _ = drift_report(opened, scope, day)
        context.log.info(f"{scope} {day}: {report.verdict}")
        return _described(report, write_pages(opened, report))

    return of_each_scope(context, keys_of(context), describe)


def _described(report: DriftReport, pages: Pages) -> dict[str, object]:
    known = [f.psi for f in report.features if f.psi is not None]
    described: dict[str, object] = {
        "verdict": report.verdict,
        "model_version": report.model_version,
        "retrain": report.retrain,
        **numbers_of(report.scope, {"features_in_alarm": len(report.alarms), "largest_psi": max(known, default=0.0)}),
        "dagster/row_count": report.rows,
        "feed_faults": "; ".join(report.feed_faults) or "none found",
        "signal_dead": report.signal_dead,
        "page": dg.MetadataValue.path(str(pages.html)),
        "psi_by_week": picture(pages.heat_map.read_bytes(), "PSI by feature and week"),
        "matured_predictions": report.matured_predictions,
        "features": table([asdict(f) for f in report.features]),
        "psi_by_feature": picture(plots.drift_bars(report, f"Drift, {report.scope} {report.day}"), "PSI by feature"),
    }
    if report.rolling_accuracy is not None:
        described |= numbers_of(report.scope, {"rolling_accuracy": report.rolling_accuracy})
    if report.signal_test is not None:
        described |= numbers_of(report.scope, {"signal_statistic": report.signal_test.statistic})
    return described
