"""The calibrated model of each scope as of each Sunday."""

from datetime import date

import dagster as dg

from signals_core import plots
from signals_core.ml.training import CODE, TrainedModel, train_model
from signals_core.ml.wording import calibration_note
from signals_core.provenance import source_digest
from signals_dagster.assets.features import feature_matrix
from signals_dagster.assets.target import target
from signals_dagster.assets.validation import validation_windows
from signals_dagster.metadata import OWNERS, numbers_of, of_each_scope, picture, table
from signals_dagster.partitions import PARTITIONS, keys_of
from signals_dagster.resources import WorkspaceResource

CAUSE_TAG = "signals/cause"
"""Run tag: why a retrain was asked for (schedule, drift, performance, staleness, failure or a person)."""
SCOPE_TAG = "signals/scope"
"""Run tag: the only scope to retrain; without it, every one."""


_PLOTTED = (
    *("accuracy", "log_loss", "raw_log_loss", "prior_log_loss", "classwise_ece"),
    *("gain", "gain_error", "gain_flat_or_move", "gain_direction"),
    *("balanced_accuracy", "brier_skill", "classwise_ece_chance_high"),
    *("information_coefficient", "sharpe", "deflated_sharpe"),
)


class TrainingConfig(dg.Config):
    """Why this training was asked for; it is kept in the model's manifest and the registry's journal."""

    cause: str = "a person"
    as_of: str | None = None
    """Use sessions before this date; default: the partition's Sunday. A retrain within the week says today."""


@dg.asset(
    deps=[
        dg.AssetDep(feature_matrix, partition_mapping=PARTITIONS.symbols_to_weeks),
        dg.AssetDep(target, partition_mapping=PARTITIONS.symbols_to_weeks),
        dg.AssetDep(validation_windows, partition_mapping=PARTITIONS.windows_to_weeks),
    ],
    partitions_def=PARTITIONS.scope_week,
    group_name="model",
    owners=OWNERS,
    kinds={"xgboost", "redis"},
    code_version=source_digest(*CODE),
    description="Trained on the last `ml.train_months`, calibrated on the windows' out-of-fold predictions, "
    "registered, and promoted if it passes the gate; if not, registered with the reason.",
)
def calibrated_model(
    context: dg.AssetExecutionContext, config: TrainingConfig, workspace: WorkspaceResource
) -> dg.MaterializeResult:
    """A registered version of each scope."""

    def describe(scope: str, sunday: date) -> dict[str, object]:
        as_of = date.fromisoformat(config.as_of) if config.as_of else sunday
        trained = train_model(workspace.open(), scope, as_of, config.cause, by="dagster")
        context.log.info(f"{scope}: {trained.version.version_id} {trained.version.decision}")
        return _described(trained)

    return of_each_scope(context, keys_of(context), describe)


def _described(trained: TrainedModel) -> dict[str, object]:
    version, figures = trained.version, trained.version.metrics
    title = f"{version.scope} {version.version_id}"
    return {
        "version": version.version_id,
        "decision": version.decision,
        "in_service": version.active,
        "digest": version.digest,
        **numbers_of(version.scope, {name: figures[name] for name in _PLOTTED if figures.get(name) is not None}),
        "dagster/row_count": figures["train_rows"],
        "reliability": table([vars(b) for b in trained.reliability]),
        "reliability_diagram": picture(
            plots.reliability_diagram(
                trained.reliability, f"Reliability out of sample, {title}", calibration_note(figures)
            ),
            "reliability",
        ),
        "feature_importance": picture(
            plots.importance_bars(trained.importance, f"Feature importance, {title}"), "importance"
        ),
    }
