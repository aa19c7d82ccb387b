"""Hyperparameters found with Optuna inside a training period, on its own purged, latest part."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.ml.pipeline import MAX_BIN, MLPipeline, booster_params, labels_of
from signals_core.ml.target import NO_LABEL
from signals_core.settings import MLSettings, TuningSettings

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Tuned:
    """The chosen parameters and boosting rounds, and what they scored on the tuning rows."""

    params: dict[str, Any]
    rounds: int
    log_loss: float
    trials: int


def tune(features: pd.DataFrame, target: pd.DataFrame, ml: MLSettings, tuning: TuningSettings) -> Tuned:
    """Search hyperparameters using only the rows given, which are one training period.

    The latest `validation_fraction` of the dates scores the trials; rows whose label reaches into it are
    left out of the fits.

    Args:
        features: (n, f), index (symbol, date).
        target: same index, columns label and label_end.

    Raises:
        MissingPrerequisite: too few dates to fit on some and score on others.
    """
    if tuning.trials == 0:
        params = ml.xgb_params.model_dump()
        return Tuned(params, ml.xgb_params.n_estimators, np.nan, 0)
    import optuna
    import xgboost as xgb

    labels = labels_of(target["label"])
    fit, score = (rows & (labels != NO_LABEL) for rows in split_latest(target, tuning.validation_fraction))
    if not fit.any() or not score.any():
        raise MissingPrerequisite(
            f"{len(target)} training rows leave {fit.sum()} to fit and {score.sum()} to score trials on: load more "
            "history, or set tuning.trials to 0"
        )
    pipeline = MLPipeline(ml, tuning.seed)
    columns = features.columns[features[fit].notna().any()]
    training = xgb.QuantileDMatrix(
        features.loc[fit, columns],
        labels[fit],
        weight=pipeline.row_weights(labels[fit]),
        max_bin=MAX_BIN,
        nthread=1,
    )
    scoring = xgb.DMatrix(
        features.loc[score, columns], labels[score], weight=pipeline.row_weights(labels[score]), nthread=1
    )
    stops_early = tuning.search_space == "regularised"

    def objective(trial: "optuna.Trial") -> float:
        params, rounds = _suggest(trial, tuning)
        history: dict[str, dict[str, list[float]]] = {}
        xgb.train(
            booster_params(params, tuning.seed),
            training,
            rounds,
            evals=[(scoring, "score")],
            early_stopping_rounds=tuning.early_stopping_rounds if stops_early else None,
            evals_result=history,
            verbose_eval=False,
        )
        losses = history["score"]["mlogloss"]
        best = int(np.argmin(losses)) if stops_early else rounds - 1
        trial.set_user_attr("params", params)
        trial.set_user_attr("rounds", best + 1)
        return losses[best]

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=tuning.seed))
    study.optimize(objective, n_trials=tuning.trials)
    best = study.best_trial
    return Tuned(best.user_attrs["params"], best.user_attrs["rounds"], float(study.best_value), tuning.trials)


def split_latest(target: pd.DataFrame, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Boolean rows (n,) to fit on and to score on: the latest `fraction` of the dates scores.

    A row is fitted on only if its label was known before the first scoring date; no date is split.
    """
    dates = target.index.get_level_values("date")
    unique = dates.unique().sort_values()
    if len(unique) < 2:
        return np.zeros(len(dates), dtype=bool), np.zeros(len(dates), dtype=bool)
    boundary = unique[max(int(len(unique) * (1 - fraction)), 1)]
    return np.asarray(target["label_end"] < boundary), np.asarray(dates >= boundary)


def _suggest(trial: "optuna.Trial", tuning: TuningSettings) -> tuple[dict[str, Any], int]:
    if tuning.search_space == "specification":
        params = {
            "max_depth": trial.suggest_int("max_depth", 3, 10),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2),
            "subsample": trial.suggest_float("subsample", 0.6, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.6, 1.0),
            "min_child_weight": trial.suggest_int("min_child_weight", 1, 10),
        }
        return params, trial.suggest_int("n_estimators", 100, 500)
    # Daily returns hold little signal: shallow trees, heavy leaves, and as many rounds as still help.
    params = {
        "max_depth": trial.suggest_int("max_depth", 2, 4),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.2, 1.0),
        "min_child_weight": trial.suggest_float("min_child_weight", 5, 200, log=True),
        "reg_lambda": trial.suggest_float("reg_lambda", 1, 100, log=True),
    }
    return params, tuning.max_rounds
