"""Hyperparameters found with Optuna inside a training period, on its own purged, latest part.

What makes it fast: the rows are binned once and every trial shares them; rounds are found by stopping early
instead of being searched for; a trial that is behind the others at the same stage is given up.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.ml.feature_groups import ALL, FeatureGroup, distinct_groups, earns_its_place
from signals_core.ml.metrics import log_loss_rows
from signals_core.ml.pipeline import MAX_BIN, MLPipeline, booster_params, labels_of
from signals_core.ml.splits import session_codes, split_latest
from signals_core.ml.study import open_study
from signals_core.ml.target import NO_LABEL, class_shares
from signals_core.provenance import digest, modules_behind, source_digest
from signals_core.settings import MLSettings, TuningSettings

if TYPE_CHECKING:
    import optuna
    import xgboost

_STAGE = 0.2
"""Trials are compared at equal progress, rounds × learning rate: at equal rounds the slow ones always look worse."""
_FIRST_STAGE = 3
"""No trial is given up before it."""
_RIVALS = 5
"""Finished trials it takes to give another one up."""
_START = {"max_depth": 3, "learning_rate": 0.05, "subsample": 0.7, "colsample_bytree": 0.6, "reg_lambda": 10.0}
"""What a regularised search tries first: strongly regularised, which is rarely far off."""
_START_LEAVES = 200
"""Of the first trial at most: its leaves weigh that share of the rows, within the range searched."""
_LEAF_WEIGHTS = (5.0, 200.0)
_PRUNED_ABOVE = 25.0
"""A trial is given up where its loss is above this percentile of the finished ones at the same stage."""
_GAINS, _GAIN_DECIMALS = "daily_gains", 7
"""Of a trial in its study: a millionth of a nat is far below what can be told apart, and makes a kilobyte a trial."""
_CODE = modules_behind("signals_core.ml.tuning")


@dataclass(frozen=True)
class Tuned:
    """The chosen parameters, boosting rounds and columns, and what they scored on the tuning rows."""

    params: dict[str, Any]
    rounds: int
    log_loss: float
    trials: int
    pruned: int = 0
    group: FeatureGroup = ALL
    suggested: dict[FeatureGroup, dict[str, Any]] = field(default_factory=dict)
    """The best trial of each group of columns as Optuna names it: what a later window may start from."""
    trial_gains: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    """Gain in log-loss over the class prior, in nats: a row a scoring date (the mean of its rows), a column a finished
    trial (levels group and trial, its number in the group). What was given up early has no full series."""

    def gains_of_choice(self) -> pd.DataFrame:
        """`trial_gains` of the chosen group: the best of these is what was taken."""
        if self.trial_gains.empty:
            return self.trial_gains
        return self.trial_gains.loc[:, self.trial_gains.columns.get_level_values("group") == self.group]


def tune(
    features: pd.DataFrame,
    target: pd.DataFrame,
    ml: MLSettings,
    tuning: TuningSettings,
    *,
    warm: Mapping[FeatureGroup, Mapping[str, Any]] | None = None,
    study: Path | None = None,
) -> Tuned:
    """Search hyperparameters using only the rows given, which are one training period.

    The latest `validation_fraction` of the dates scores the trials, by the log-loss that `MLPipeline.predict`
    would have there; rows whose label reaches into it are left out of the fits. The same rows and settings
    find the same parameters, whether or not the search was interrupted.

    Args:
        features: (n, f), index (symbol, date).
        target: same index, columns label and label_end.
        warm: `Tuned.suggested` of an earlier window, to be tried first.
        study: a file that keeps finished trials, so that a killed search goes on where it was.

    Raises:
        MissingPrerequisite: too few dates to fit on some and score on others.
    """
    if tuning.trials == 0:
        params = ml.xgb_params.model_dump()
        return Tuned(params, ml.xgb_params.n_estimators, np.nan, 0, group=tuning.feature_groups[0])
    rows = _SearchRows(features, target, ml, tuning)
    name = _name(features, target, ml, tuning, warm) if study else ""
    # Half the trials each: the group that looks better by luck would otherwise draw the search to itself.
    groups = list(rows.columns)
    shares = {group: len(range(place, tuning.trials, len(groups))) for place, group in enumerate(groups)}
    searches = {
        group: _search(rows, group, trials, name, warm, study and study.with_name(f"{study.name}-{group}"))
        for group, trials in shares.items()
        if trials
    }
    chosen = _chosen_group(rows, searches, ml.prediction_horizon)
    best = searches[chosen].best_trial
    return Tuned(
        best.user_attrs["params"],
        best.user_attrs["rounds"],
        float(searches[chosen].best_value),
        tuning.trials,
        sum(trial.state.name == "PRUNED" for search in searches.values() for trial in search.trials),
        chosen,
        {group: dict(search.best_params) for group, search in searches.items()},
        _trial_gains(rows, searches),
    )


def _search(
    rows: "_SearchRows",
    group: FeatureGroup,
    trials: int,
    name: str,
    warm: Mapping[FeatureGroup, Mapping[str, Any]] | None,
    path: Path | None,
) -> "optuna.Study":
    """The study of one group of columns after so many trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = optuna.create_study(pruner=_pruner(rows.tuning))
    with open_study(path, name) as kept:
        if kept is not None:
            search.add_trials(kept.trials())
        for number in range(len(search.trials), trials):
            if number == 0:
                search.enqueue_trial(dict((warm or {}).get(group) or rows.start()))
            # A sampler of its own for each trial: an interrupted search has no state to lose.
            seed = int(digest(rows.tuning.seed, group, number)[:8], 16)
            search.sampler = optuna.samplers.TPESampler(seed=seed)
            trial = search.ask()
            try:
                search.tell(trial, _try(trial, rows, group))
            except optuna.TrialPruned:
                search.tell(trial, state=optuna.trial.TrialState.PRUNED)
            if kept is not None:
                kept.append(search.trials[-1])
    return search


def _trial_gains(rows: "_SearchRows", searches: Mapping[FeatureGroup, "optuna.Study"]) -> pd.DataFrame:
    columns = {
        (group, trial.number): trial.user_attrs[_GAINS]
        for group, search in searches.items()
        for trial in search.trials
        if trial.state.name == "COMPLETE"
    }
    return pd.DataFrame(columns, index=rows.dates).rename_axis(columns=["group", "trial"])


def _chosen_group(rows: "_SearchRows", searches: Mapping[FeatureGroup, "optuna.Study"], horizon: int) -> FeatureGroup:
    """The smallest group, unless the best trial of a larger one is better by more than its uncertainty."""
    chosen, *rivals = searches
    if not rivals:
        return chosen
    losses = rows.best_losses(chosen, searches[chosen])
    for rival in rivals:
        rival_losses = rows.best_losses(rival, searches[rival])
        if earns_its_place(losses, rival_losses, horizon):
            chosen, losses = rival, rival_losses
    return chosen


def _name(features: pd.DataFrame, target: pd.DataFrame, ml: MLSettings, tuning: TuningSettings, warm: Any) -> str:
    """Of a search: it changes with everything that its result depends on."""
    return digest(features, target[["label", "label_end"]], ml, tuning, warm, source_digest(*_CODE))


class _SearchRows:
    """The rows that trials fit and score on, binned once a group of columns."""

    def __init__(self, features: pd.DataFrame, target: pd.DataFrame, ml: MLSettings, tuning: TuningSettings) -> None:
        labels = labels_of(target["label"])
        fit, score = (rows & (labels != NO_LABEL) for rows in split_latest(target, tuning.validation_fraction))
        if not fit.any() or not score.any():
            raise MissingPrerequisite(
                f"{len(target)} training rows leave {fit.sum()} to fit and {score.sum()} to score trials on: load "
                "more history, or set tuning.trials to 0"
            )
        self.tuning = tuning
        self._fit, self._score = features[fit], features[score]
        self._labels, self._scored = labels[fit], labels[score]
        self._pipeline = MLPipeline(ml, tuning.seed)
        self._pipeline.prior = class_shares(self._labels)
        self._prior_losses = log_loss_rows(self._pipeline.prior, self._scored)
        self._date_of, dates = session_codes(self._score.index)
        self.dates = pd.DatetimeIndex(dates, name="date")
        """The dates that score, in order."""
        known = self._fit.columns[self._fit.notna().any()]
        self.columns = distinct_groups(self._fit[known], tuning.feature_groups)
        """Of the groups to choose between, the smallest first."""
        self._matrices: dict[FeatureGroup, tuple[xgboost.DMatrix, xgboost.DMatrix]] = {}

    def start(self) -> dict[str, float]:
        """What to try first where no earlier window says; the literal space starts at random."""
        if self.tuning.search_space == "specification":
            return {}
        return {**_START, "min_child_weight": float(np.clip(len(self._labels) / _START_LEAVES, *_LEAF_WEIGHTS))}

    def matrices(self, group: FeatureGroup) -> "tuple[xgboost.DMatrix, xgboost.DMatrix]":
        """The rows to fit on and to score on."""
        import xgboost as xgb

        if group not in self._matrices:
            # Arrays, not frames: XGBoost reads a matrix's column names again before every round.
            fit, score = (rows[self.columns[group]].to_numpy("float32") for rows in (self._fit, self._score))
            weights = self._pipeline.row_weights(self._labels)
            self._matrices[group] = (
                xgb.QuantileDMatrix(fit, self._labels, weight=weights, max_bin=MAX_BIN, nthread=1),
                xgb.DMatrix(score, nthread=1),
            )
        return self._matrices[group]

    def losses(self, booster: "xgboost.Booster", scored: "xgboost.DMatrix") -> np.ndarray:
        """Of the probabilities that would be served, a row each."""
        raw = booster.predict(scored).astype("float64")
        return log_loss_rows(self._pipeline.restore_prior(raw), self._scored)

    def daily_gains(self, losses: np.ndarray) -> list[float]:
        """The mean gain over the class prior on each of `dates`."""
        gains = np.bincount(self._date_of, weights=self._prior_losses - losses) / np.bincount(self._date_of)
        return [float(gain) for gain in gains.round(_GAIN_DECIMALS)]

    def best_losses(self, group: FeatureGroup, search: "optuna.Study") -> pd.Series:
        """What the best trial of a search scored, a row each."""
        import xgboost as xgb

        fit, scored = self.matrices(group)
        best = search.best_trial.user_attrs
        booster = xgb.Booster(booster_params(best["params"], self.tuning.seed), [fit, scored])
        for done in range(best["rounds"]):
            booster.update(fit, done)
        return pd.Series(self.losses(booster, scored), index=self._score.index)


def _try(trial: "optuna.Trial", rows: _SearchRows, group: FeatureGroup) -> float:
    """Boost one suggestion; the log-loss of its best round, or of its last in the literal search space."""
    import optuna
    import xgboost as xgb

    tuning = rows.tuning
    params, rounds = _suggest(trial, tuning)
    stops_early = tuning.search_space == "regularised"
    rate = params["learning_rate"]
    every = math.ceil(_STAGE / rate)
    fit, scored = rows.matrices(group)
    booster = xgb.Booster(booster_params(params, tuning.seed), [fit, scored])
    best, best_rounds, kept = np.inf, 0, np.empty(0)
    for done in range(1, rounds + 1):
        booster.update(fit, done - 1)
        if done % every and done < rounds:
            continue
        losses = rows.losses(booster, scored)
        loss = float(losses.mean())
        if loss < best:
            best, best_rounds, kept = loss, done, losses
        elif stops_early and done - best_rounds >= tuning.early_stopping_rounds:
            break
        if done % every == 0:
            trial.report(best, round(done * rate / _STAGE))
            if trial.should_prune():
                raise optuna.TrialPruned
    trial.set_user_attr("params", params)
    trial.set_user_attr("rounds", best_rounds if stops_early else rounds)
    trial.set_user_attr(_GAINS, rows.daily_gains(kept if stops_early else losses))
    return best if stops_early else loss


def _pruner(tuning: TuningSettings) -> "optuna.pruners.BasePruner":
    import optuna

    if not tuning.pruning:
        return optuna.pruners.NopPruner()
    return optuna.pruners.PercentilePruner(_PRUNED_ABOVE, n_startup_trials=_RIVALS, n_warmup_steps=_FIRST_STAGE)


def _suggest(trial: "optuna.Trial", tuning: TuningSettings) -> tuple[dict[str, Any], int]:
    """Parameters by XGBoost's names, and how many rounds at most."""
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
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.2, 1.0),
        "min_child_weight": trial.suggest_float("min_child_weight", *_LEAF_WEIGHTS, log=True),
        "reg_lambda": trial.suggest_float("reg_lambda", 1, 100, log=True),
    }
    return params, tuning.max_rounds
