"""Walk-forward validation windows: one partition a scope and test start, computed once."""

from dataclasses import asdict

import dagster as dg

from signals_core import plots
from signals_core.ml.comparison import PooledChallenge, compare_challengers, earned_its_place
from signals_core.ml.overfitting import pool_searches
from signals_core.ml.validation import LOGISTIC
from signals_core.ml.windows import CODE, WindowOutcome, compute_windows
from signals_core.provenance import source_digest
from signals_dagster.assets.features import feature_matrix
from signals_dagster.assets.target import target
from signals_dagster.metadata import OWNERS, materialized, numbers_of, picture, table
from signals_dagster.partitions import PARTITIONS, keys_of
from signals_dagster.resources import WorkspaceResource

_SCORES = ("balanced_accuracy", "brier_skill", "classwise_ece", "information_coefficient", "deflated_sharpe")


@dg.asset(
    deps=[
        dg.AssetDep(feature_matrix, partition_mapping=PARTITIONS.symbols_to_windows),
        dg.AssetDep(target, partition_mapping=PARTITIONS.symbols_to_windows),
    ],
    partitions_def=PARTITIONS.scope_window,
    group_name="validation",
    owners=OWNERS,
    kinds={"xgboost", "optuna", "parquet"},
    code_version=source_digest(*CODE),
    description="Tune and train on the months before the test start, purged by each label's own interval, predict "
    "the months after it beside a logistic regression and the model that served, and keep the out-of-fold "
    "predictions. A window uses nothing from after its own end, so a past one never changes.",
)
def validation_windows(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Out-of-sample figures and predictions of each window."""
    keys = keys_of(context)
    wanted = [(key.keys_by_dimension["scope"], key.keys_by_dimension["date"]) for key in keys]
    opened = workspace.open()
    outcomes = compute_windows(opened, wanted)
    by_key = {str(key): _figures(outcome) for key, outcome in zip(keys, outcomes, strict=True)}
    for outcome in outcomes:
        if outcome.refusal:
            context.log.warning(f"{outcome.scope}: {outcome.refusal}")
    computed = f"{sum(o.computed for o in outcomes)} of {len(outcomes)}"
    common = {"computed": computed, "windows": table([_row(o) for o in outcomes])}
    for scope in dict.fromkeys(o.scope for o in outcomes):
        results = [o.result for o in outcomes if o.scope == scope and o.result is not None]
        compared = compare_challengers(results, opened.settings.ml.prediction_horizon)
        if compared:
            common[f"challengers_{scope}"] = table([_challenge(found) for found in compared.values()])
            common[f"xgboost_earned_its_place_{scope}"] = earned_its_place(compared)
        if results:
            common[f"overfitting_{scope}"] = str(pool_searches([result.overfitting for result in results]))
        if len(results) > 1:
            title = f"Walk-forward windows, {scope}"
            common[f"window_metrics_{scope}"] = picture(plots.window_metrics(results, title), title)
    return materialized(context, by_key, common)


def _figures(outcome: WindowOutcome) -> dict[str, object]:
    result = outcome.result
    if result is None:
        return {"refused": outcome.refusal or ""}
    logistic, overfitting = result.challengers[LOGISTIC], result.overfitting
    numbers = {
        "accuracy": result.accuracy,
        "log_loss": result.log_loss,
        "prior_log_loss": result.prior_log_loss,
        "gain_over_prior": result.gain,
        "gain_standard_error": result.gain_error,
        "advantage_over_logistic": logistic.advantage,
        "advantage_over_logistic_error": logistic.advantage_error,
        "sharpe_ratio": result.sharpe_ratio,
        **{name: result.scores[name] for name in _SCORES if result.scores[name] is not None},
        **({} if overfitting.probability is None else {"overfitting_probability": overfitting.probability}),
        "train_rows": result.train_rows,
        "purged_rows": result.purged_rows,
        "rounds": result.rounds,
    }
    return {
        **numbers_of(outcome.scope, numbers),
        "dagster/row_count": result.test_rows,
        "test_end": result.end,
        "params": dg.MetadataValue.json(result.params),
        "columns": f"{result.feature_group} ({result.features})",
        "trials": f"{result.trials}, {result.pruned_trials} of them given up early",
        "overfitting": table([{"figure": name, "value": value} for name, value in asdict(overfitting).items()]),
        "rows": dg.MetadataValue.json(result.rows),
        "trained_on": " to ".join(result.train_dates),
        "labels_end_before": result.barrier,
        "scores": table([{"figure": name, "value": value} for name, value in result.scores.items()]),
        "challengers": table(
            [{"challenger": name, **asdict(found)} for name, found in result.challengers.items()],
        ),
    }


def _challenge(found: PooledChallenge) -> dict[str, object]:
    return {
        "challenger": found.challenger,
        "rows": found.rows,
        "log_loss": found.log_loss,
        "xgboost_log_loss": found.xgboost_log_loss,
        "xgboost_advantage": found.advantage.mean,
        "error": found.advantage.standard_error,
        "verdict": found.verdict,
    }


def _row(outcome: WindowOutcome) -> dict[str, object]:
    result = outcome.result
    if result is None:
        return {"scope": outcome.scope, "test_start": outcome.key, "refused": outcome.refusal}
    return {
        "scope": outcome.scope,
        "test_start": result.start,
        "test_end": result.end,
        "rows": result.test_rows,
        "accuracy": result.accuracy,
        "log_loss": result.log_loss,
        "prior": result.prior_log_loss,
        "gain": result.gain,
        "error": result.gain_error,
        "over_logistic": result.challengers[LOGISTIC].advantage,
        "columns": result.feature_group,
        "sharpe": result.sharpe_ratio,
        "refused": "",
    }
