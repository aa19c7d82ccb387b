"""Jobs: one per kind of partition, and the weekly retrain and daily signals that run them in order.

A Dagster run covers partitions of one kind. The two scheduled jobs therefore have one op a layer, and each
op materialises the partitions of its layer that are missing or stale in runs of the asset jobs below.
"""

import dagster as dg

from signals_core.ml.training import as_of_sunday
from signals_dagster.assets.model import CAUSE_TAG, SCOPE_TAG
from signals_dagster.resources import WorkspaceResource

features_job = dg.define_asset_job(
    "features_job",
    selection=dg.AssetSelection.assets("bars", "reference_bars", "data_quality")
    | dg.AssetSelection.groups("features", "target"),
    description="Bars, feature categories, matrix and target of a range of symbols and dates; data quality.",
)
facts_job = dg.define_asset_job(
    "facts_job",
    selection=dg.AssetSelection.assets(
        "fundamentals", "insider_transactions", "short_interest", "universe_membership", "data_quality"
    ),
    description="All facts from their sources, membership of the universe, and the data-quality report.",
)
daily_bars_job = dg.define_asset_job(
    "daily_bars_job",
    selection=dg.AssetSelection.assets("bars", "reference_bars"),
    description="New, late and corrected bars of a range of symbols and dates.",
)
fundamentals_job = dg.define_asset_job(
    "fundamentals_job",
    selection=dg.AssetSelection.assets("fundamentals", "universe_membership", "data_quality"),
    description="New and restated filings, membership of the universe, and the data-quality report.",
)
altdata_job = dg.define_asset_job(
    "altdata_job",
    selection=dg.AssetSelection.assets("insider_transactions", "short_interest", "data_quality"),
    description="New insider transactions and short interest, and the data-quality report.",
)
windows_job = dg.define_asset_job(
    "windows_job",
    selection=dg.AssetSelection.groups("validation"),
    description="Validation windows of a range of scopes and test starts.",
)
model_job = dg.define_asset_job(
    "model_job",
    selection=dg.AssetSelection.groups("model", "strategy"),
    description="Train, calibrate, register and judge the models of a Sunday; follow their predictions.",
)
session_job = dg.define_asset_job(
    "session_job",
    selection=dg.AssetSelection.groups("monitoring", "signals"),
    description="Drift report and signals of a range of scopes and days.",
)


_PATIENCE_SECONDS = 6 * 3600
"""How long a scheduled job waits for another one on the same project."""


def _layer_op(name: str, layer: str, description: str, first: bool = False) -> dg.OpDefinition:
    """An op that brings one layer of the main job up to date, after the op before it."""

    @dg.op(
        name=name,
        ins={} if first else {"after": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        description=description,
    )
    def bring_up_to_date(context: dg.OpExecutionContext, workspace: WorkspaceResource) -> None:
        from signals_dagster.main_job import main_job_lock, run_layer, tidy_up

        opened, tags = workspace.open(), context.run.tags
        cause, scope = tags.get(CAUSE_TAG, "a person"), tags.get(SCOPE_TAG)
        with main_job_lock(opened, _PATIENCE_SECONDS):
            tidy_up(opened, context.instance)
            done = run_layer(layer, opened, context.instance, as_of_sunday(opened.now), cause, scope)
        context.log.info(f"{done.title}: {done.outcome}")

    return bring_up_to_date


bring_features_up_to_date = _layer_op(
    "bring_features_up_to_date", "features", "Fetch new bars and bring features and target up to date.", first=True
)
compute_new_windows = _layer_op(
    "compute_new_windows", "windows", "Compute the validation windows that are new or stale."
)
train_and_judge = _layer_op("train_and_judge", "model", "Train, calibrate, register and judge this week's models.")
report_last_session = _layer_op("report_last_session", "session", "Drift report and signals of the last session.")


@dg.job(
    executor_def=dg.in_process_executor,
    description="Features up to date, new windows, train, calibrate, register, promote or not, and report.",
)
def weekly_retrain_job() -> None:
    """What happens on Sunday at 02:00."""
    report_last_session(train_and_judge(compute_new_windows(bring_features_up_to_date())))


@dg.job(
    executor_def=dg.in_process_executor,
    description="After the close: new bars, features, drift report and signals from the models in service.",
)
def daily_signals_job() -> None:
    """What happens after the close of every session."""
    report_last_session(bring_features_up_to_date())
