"""Walk-forward validation: in every window tune, train and score XGBoost and its challengers on the same rows."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml import metrics
from signals_core.ml.champion import FindChampion
from signals_core.ml.feature_groups import ALL, FeatureGroup, group_columns
from signals_core.ml.logistic import fit_logistic
from signals_core.ml.overfitting import SearchOverfitting, judge_search
from signals_core.ml.pipeline import MLPipeline, labels_of
from signals_core.ml.scores import probability_figures, return_figures
from signals_core.ml.splits import PanelSplitter, Window, WindowRows, calendar_windows, window_target
from signals_core.ml.target import CLASSES, class_shares
from signals_core.ml.tuning import tune
from signals_core.settings import MLSettings, TuningSettings, ValidationSettings

PROBABILITY_COLUMNS = ["p_down", "p_flat", "p_up"]
PRIOR_COLUMNS = ["prior_down", "prior_flat", "prior_up"]
"""The class shares that a window was trained on."""
LOGISTIC, CHAMPION = "logistic", "champion"
_TABLES = ("out_of_fold", "trial_gains")


def challenger_columns(name: str) -> list[str]:
    """Where a challenger's probabilities are kept among the out-of-fold rows."""
    return [f"{name}_{label.lower()}" for label in CLASSES]


@dataclass(frozen=True)
class Challenge:
    """How a challenger did on a window's test rows, and XGBoost beside it; errors are Newey-West."""

    log_loss: float
    gain: float
    """Over the class prior."""
    gain_error: float
    advantage: float
    """Of XGBoost: the challenger's log-loss less its own, so that above 0 XGBoost is better."""
    advantage_error: float
    detail: str
    """What the challenger was: penalty and columns, or a model version."""


@dataclass(frozen=True)
class WindowResult:
    """The figures of one window; `out_of_fold` has one row a test row."""

    start: str
    end: str
    train_start: str
    accuracy: float
    log_loss: float
    prior_log_loss: float
    gain: float
    gain_error: float
    sharpe_ratio: float
    train_rows: int
    test_rows: int
    purged_rows: int
    unlabelled_rows: int
    prior: list[float]
    test_shares: list[float]
    params: dict[str, Any]
    rounds: int
    rows: dict[str, int]
    """Rows of the window's spans by what was done with them: see `signals_core.ml.splits.RowUse`."""
    train_dates: list[str]
    """The first and the last date trained on."""
    test_dates: list[str]
    barrier: str
    """Training labels end before it."""
    feature_group: FeatureGroup
    features: int
    trials: int
    pruned_trials: int
    tuning_log_loss: float | None
    overfitting: SearchOverfitting
    """Of the search for parameters, among the trials of the chosen columns."""
    suggested: dict[FeatureGroup, dict[str, Any]]
    """The best trial of each group of columns, which a later window may start from."""
    warm_from: str | None
    """The window whose best trials were tried first."""
    challengers: dict[str, Challenge]
    scores: dict[str, Any]
    """`scores.probability_figures` and `scores.return_figures` of the test rows, before calibration."""
    out_of_fold: pd.DataFrame = field(repr=False, compare=False)
    """Index (symbol, date); columns label, label_end, forward_return, p_down, p_flat, p_up (uncalibrated),
    logistic_down, logistic_flat, logistic_up, and champion_... where a model was in service."""
    trial_gains: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    """`tuning.Tuned.trial_gains` of a window just computed; of a stored one `WindowStore.trial_gains` has it."""

    def figures(self) -> dict[str, Any]:
        """Everything but the predictions, as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TABLES}
        challengers = {name: asdict(found) for name, found in self.challengers.items()}
        return {**values, "challengers": challengers, "overfitting": asdict(self.overfitting)}

    @classmethod
    def from_figures(cls, figures: Mapping[str, Any], out_of_fold: pd.DataFrame) -> "WindowResult":
        """The result of `figures` and its predictions."""
        challengers = {name: Challenge(**found) for name, found in figures["challengers"].items()}
        overfitting = SearchOverfitting(**figures["overfitting"])
        return cls(**{**figures, "challengers": challengers, "overfitting": overfitting}, out_of_fold=out_of_fold)


class WalkForwardValidator:
    """Tunes, trains and scores a model in every window, each inside its own training period."""

    def __init__(
        self,
        ml: MLSettings | None = None,
        tuning: TuningSettings | None = None,
        validation: ValidationSettings | None = None,
        champion: FindChampion | None = None,
    ) -> None:
        """Settings, defaults where None; `champion` gives the model that served before a window, to be scored too."""
        self.ml = ml or MLSettings()
        self.tuning = tuning or TuningSettings()
        self.validation = validation or ValidationSettings()
        self.champion = champion

    def run(
        self,
        features: pd.DataFrame,
        target: pd.DataFrame | pd.Series,
        train_months: int = 24,
        test_months: int = 6,
        step_months: int = 3,
    ) -> list[WindowResult]:
        """Every whole window of the panel, in time order.

        Args:
            features: index (symbol, date), float columns.
            target: same index; the frame of `make_target`, or only labels: then each label is taken to
                be known `prediction_horizon` rows of its symbol later, and there is no Sharpe ratio.

        Raises:
            MissingPrerequisite: the dates hold no whole window, or a window has too few rows.
            DataError: features and target have different rows, or a row twice.
        """
        frame = target if isinstance(target, pd.DataFrame) else _frame_of(target, self.ml.prediction_horizon)
        if not features.index.equals(frame.index):
            raise DataError("features and target must have the same (symbol, date) index")
        if features.index.has_duplicates:
            raise DataError(f"{features.index[features.index.duplicated()][0]} occurs more than once: keep one row")
        dates = features.index.get_level_values("date")
        first, last = dates.min().date(), (dates.max() + pd.Timedelta(days=1)).date()
        windows = list(calendar_windows(first, last, train_months, test_months, step_months))
        if not windows:
            raise MissingPrerequisite(f"{first}..{last} holds no window of {train_months} + {test_months} months")
        splitter = PanelSplitter(frame, self.validation.embargo_sessions)
        results: dict[Window, WindowResult] = {}
        for window in windows:
            source = warm_source(window, windows) if self.tuning.warm_start else None
            warm = results[source] if source else None
            results[window] = self.run_window(window, features, frame, warm=warm, rows=splitter.split(window))
        return list(results.values())

    def run_window(
        self,
        window: Window,
        features: pd.DataFrame,
        target: pd.DataFrame,
        *,
        warm: WindowResult | None = None,
        study: Path | None = None,
        rows: WindowRows | None = None,
    ) -> WindowResult:
        """Tune and train on the window's training rows, predict its test rows.

        Args:
            window: the window.
            features: (n, f), index (symbol, date).
            target: same index; the frame of `make_target`.
            warm: of a window whose test ended before this one's starts: its best trials are tried first.
            study: a file that keeps the trials of an interrupted search.
            rows: the split, if it was made already.

        Raises:
            MissingPrerequisite: too few training rows, or none to test.
        """
        rows = rows or PanelSplitter(target, self.validation.embargo_sessions).split(window)
        if not rows.test.any():
            raise MissingPrerequisite(f"window {window.key}: no labelled row to test on")
        audit = rows.audit(target)
        target = window_target(target, rows, self.ml.prediction_horizon)
        train_x, train_y = features[rows.train], target[rows.train]
        test_x, test_y = features[rows.test], target[rows.test]
        pipeline = MLPipeline(self.ml, self.tuning.seed)
        try:
            if len(train_x) < self.ml.min_training_samples:
                raise MissingPrerequisite(
                    f"{len(train_x)} training rows, ml.min_training_samples asks for {self.ml.min_training_samples}"
                )
            started = warm.suggested if warm else None
            tuned = tune(train_x, train_y, self.ml, self.tuning, warm=started, study=study)
            columns = group_columns(train_x, tuned.group)
            pipeline.train(train_x[columns], train_y["label"], tuned.params, tuned.rounds)
        except MissingPrerequisite as error:
            raise MissingPrerequisite(f"window {window.key}: {error}") from error

        predicted = pipeline.predict(test_x)
        labels = labels_of(test_y["label"])
        loss = pd.Series(metrics.log_loss_rows(predicted, labels), index=test_y.index)
        prior_loss = pd.Series(metrics.log_loss_rows(pipeline.prior, labels), index=test_y.index)
        gain = self._mean(prior_loss - loss)
        probabilities = pd.DataFrame(predicted, index=test_y.index, columns=PROBABILITY_COLUMNS)
        followed = metrics.signal_returns(
            probabilities, test_y["trade_return"], self.ml.prediction_horizon, self.validation.cost_bps
        )
        challengers, tables = {}, [probabilities]
        for name, (table, detail) in self._challenge(window, train_x, train_y, test_x).items():
            tables.append(pd.DataFrame(table, index=test_y.index, columns=challenger_columns(name)))
            challengers[name] = self._compare(table, labels, loss, prior_loss, detail)
        horizon, costs = self.ml.prediction_horizon, self.validation.cost_bps
        figures = probability_figures(predicted, labels, test_y.index, horizon) | return_figures(
            probabilities, test_y["forward_return"], test_y["trade_return"], horizon, costs, max(tuned.trials, 1)
        )
        return WindowResult(
            start=window.test_start.isoformat(),
            end=window.test_end.isoformat(),
            train_start=window.train_start.isoformat(),
            accuracy=metrics.accuracy(predicted, labels),
            log_loss=float(loss.mean()),
            prior_log_loss=float(prior_loss.mean()),
            gain=gain.mean,
            gain_error=gain.standard_error,
            sharpe_ratio=metrics.sharpe_ratio(followed),
            train_rows=audit.counts["train"],
            test_rows=audit.counts["test"],
            purged_rows=audit.counts["purged"] + audit.counts["embargoed"],
            unlabelled_rows=audit.counts["unlabelled"],
            prior=pipeline.prior.tolist(),
            test_shares=class_shares(labels).tolist(),
            params=json.loads(json.dumps(tuned.params)),
            rounds=tuned.rounds,
            rows=audit.counts,
            train_dates=[day.isoformat() for day in audit.train_dates or ()],
            test_dates=[day.isoformat() for day in audit.test_dates or ()],
            barrier=audit.barrier.isoformat(),
            feature_group=tuned.group,
            features=len(pipeline.features),
            trials=tuned.trials,
            pruned_trials=tuned.pruned,
            tuning_log_loss=tuned.log_loss if tuned.trials else None,
            overfitting=judge_search(tuned.gains_of_choice(), self.ml.prediction_horizon),
            suggested=json.loads(json.dumps(tuned.suggested)),
            warm_from=warm.start if warm else None,
            challengers=challengers,
            scores=figures,
            out_of_fold=pd.concat(
                [test_y[["label", "label_end", "forward_return"]], *(table.astype("float32") for table in tables)],
                axis=1,
            ),
            trial_gains=tuned.trial_gains,
        )

    def _challenge(
        self, window: Window, train_x: pd.DataFrame, train_y: pd.DataFrame, test_x: pd.DataFrame
    ) -> dict[str, tuple[np.ndarray, str]]:
        """Probabilities of each challenger for the test rows, and what it was."""
        groups = self.tuning.feature_groups if self.tuning.trials else (ALL,)
        logistic = fit_logistic(train_x, train_y, self.tuning.validation_fraction, self.ml.prediction_horizon, groups)
        detail = f"penalty {logistic.penalty:g}, {logistic.group} columns"
        found = {LOGISTIC: (logistic.predict_proba(test_x), detail)}
        champion = self.champion(window) if self.champion else None
        if champion is not None:
            with suppress(DataError):  # it needs a feature that is gone: it could not have served these rows
                found[CHAMPION] = champion.predict_proba(test_x), champion.version_id
        return found

    def _compare(
        self, table: np.ndarray, labels: np.ndarray, loss: pd.Series, prior_loss: pd.Series, detail: str
    ) -> Challenge:
        rival = pd.Series(metrics.log_loss_rows(table, labels), index=loss.index)
        gain, advantage = self._mean(prior_loss - rival), self._mean(rival - loss)
        return Challenge(
            float(rival.mean()), gain.mean, gain.standard_error, advantage.mean, advantage.standard_error, detail
        )

    def _mean(self, values: pd.Series) -> metrics.Estimate:
        return metrics.newey_west_mean(values, self.ml.prediction_horizon)


def warm_source(window: Window, windows: list[Window]) -> Window | None:
    """The window whose best trials `window` may start from: the latest whose test ended before its own starts.

    Never a later one, and none that shares a date of its test.
    """
    earlier = [other for other in windows if other.test_end <= window.test_start]
    return max(earlier, key=lambda other: other.test_start, default=None)


def pool_out_of_fold(results: list[WindowResult]) -> pd.DataFrame:
    """Out-of-fold rows of all windows, each (symbol, date) once: from the latest window that tested it.

    The latest is what a weekly retrain would have served. Adds the columns `window` (its key) and `PRIOR_COLUMNS`.
    """
    parts = []
    for result in results:
        priors = dict(zip(PRIOR_COLUMNS, result.prior, strict=True))
        parts.append(result.out_of_fold.assign(window=result.start, **priors))
    pooled = pd.concat(parts)
    pooled = pooled.sort_values("window", kind="stable")
    return pooled[~pooled.index.duplicated(keep="last")].sort_index()


def _frame_of(labels: pd.Series, horizon: int) -> pd.DataFrame:
    dates = pd.Series(labels.index.get_level_values("date"), index=labels.index)
    return pd.DataFrame(
        {
            "label": labels,
            "label_end": dates.groupby(level="symbol").shift(-horizon),
            "forward_return": np.nan,
            "trade_return": np.nan,
        }
    )
