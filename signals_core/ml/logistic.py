"""The challenger that costs almost nothing: a multinomial logistic regression with ridge penalty (scikit-learn)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.ml.feature_groups import FeatureGroup, distinct_groups, earns_its_place
from signals_core.ml.linear_scores import softmax
from signals_core.ml.metrics import log_loss_rows
from signals_core.ml.pipeline import labels_of
from signals_core.ml.splits import split_latest
from signals_core.ml.target import CLASSES, NO_LABEL

_PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Ridge penalties a row of training, strongest first: at 3 hardly more than the class shares is left."""
_PENALTY_WITHOUT_SEARCH = 0.1
_FLAGGED_SHARE = 0.01
"""A column that misses this share of its values gets a second one that says where; fewer are only filled in."""
_LARGEST = 5.0
"""Standardised values are cut off there: one wild value must not decide a linear score."""
_TOLERANCE, _ITERATIONS = 1e-3, 200


@dataclass(frozen=True)
class Standardiser:
    """Fills, flags, centres and scales columns with what the training rows say."""

    columns: list[str]
    medians: np.ndarray
    flagged: np.ndarray
    """Numbers of the columns that get an indicator of missing values."""
    kept: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: pd.DataFrame, columns: Sequence[str]) -> "Standardiser":
        """Learn from training rows (n, f); columns without a value or without variation are left out."""
        values = features[list(columns)].to_numpy("float64")
        present = ~np.isnan(values).all(axis=0)
        values = values[:, present]
        missing = np.isnan(values)
        medians = np.nanmedian(values, axis=0)
        flagged = np.flatnonzero(missing.mean(axis=0) >= _FLAGGED_SHARE)
        filled = np.hstack([np.where(missing, medians, values), missing[:, flagged]])
        centre, scale = filled.mean(axis=0), filled.std(axis=0)
        # A constant column's deviation is rounding, not always exactly 0.
        kept = np.flatnonzero(scale > 1e-9 * np.maximum(np.abs(centre), 1))
        return cls(list(np.asarray(columns)[present]), medians, flagged, kept, centre[kept], scale[kept])

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """Standardised columns (n, k) without missing values."""
        values = features[self.columns].to_numpy("float64")
        missing = np.isnan(values)
        filled = np.hstack([np.where(missing, self.medians, values), missing[:, self.flagged]])
        return np.clip((filled[:, self.kept] - self.centre) / self.scale, -_LARGEST, _LARGEST)


@dataclass(frozen=True)
class LogisticRegression:
    """A fitted multinomial logistic regression with ridge penalty."""

    group: FeatureGroup
    penalty: float
    standardiser: Standardiser
    coefficients: np.ndarray
    intercepts: np.ndarray

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Probabilities (n, 3) of DOWN, FLAT, UP."""
        return softmax(self.standardiser.transform(features) @ self.coefficients.T + self.intercepts)


def fit_logistic(
    features: pd.DataFrame,
    target: pd.DataFrame,
    validation_fraction: float,
    horizon: int,
    groups: Sequence[FeatureGroup],
) -> LogisticRegression:
    """Choose penalty and columns on the training period's own purged, latest part, then fit on all of it.

    Args:
        features: (n, f), index (symbol, date).
        target: same index, columns label (all three classes occur) and label_end.
        validation_fraction: of the dates; the latest.
        groups: of columns, to choose between; the larger one only if it is better by more than its uncertainty.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn's own

    with threadpool_limits(1):  # the work is spread over processes, and sums must not depend on threads
        return _fit(features, target, validation_fraction, horizon, groups)


def _fit(
    features: pd.DataFrame,
    target: pd.DataFrame,
    validation_fraction: float,
    horizon: int,
    groups: Sequence[FeatureGroup],
) -> LogisticRegression:
    labels = labels_of(target["label"])
    fit, score = (rows & (labels != NO_LABEL) for rows in split_latest(target, validation_fraction))
    columns = distinct_groups(features, groups)
    chosen, penalty = next(iter(columns)), _PENALTY_WITHOUT_SEARCH
    if score.any() and len(np.unique(labels[fit])) == len(CLASSES):
        losses: pd.Series | None = None
        for group, names in columns.items():
            found, rows = _search(features[fit], labels[fit], features[score], labels[score], names)
            if losses is None or earns_its_place(losses, rows, horizon):
                chosen, penalty, losses = group, found, rows
    known = labels != NO_LABEL
    standardiser = Standardiser.fit(features[known], columns[chosen])
    model = _Path(standardiser.transform(features[known]), labels[known])
    coefficients, intercepts = model.at(penalty)
    return LogisticRegression(chosen, penalty, standardiser, coefficients, intercepts)


def _search(
    fit: pd.DataFrame, labels: np.ndarray, score: pd.DataFrame, scored: np.ndarray, columns: Sequence[str]
) -> tuple[float, pd.Series]:
    """The penalty with the lowest log-loss on the scoring rows, and its loss there, a row each."""
    standardiser = Standardiser.fit(fit, columns)
    path, rows = _Path(standardiser.transform(fit), labels), standardiser.transform(score)
    best, best_losses = _PENALTIES[0], np.full(len(scored), np.inf)
    for penalty in _PENALTIES:
        coefficients, intercepts = path.at(penalty)
        losses = log_loss_rows(softmax(rows @ coefficients.T + intercepts), scored)
        if losses.mean() < best_losses.mean():
            best, best_losses = penalty, losses
    return best, pd.Series(best_losses, index=score.index)


class _Path:
    """Fits of the same rows from strong to weak penalties, each starting where the last one ended."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression as Estimator

        self._rows, self._labels = rows, labels
        self._model = Estimator(tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True)

    def at(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (3, k) and intercepts (3,)."""
        self._model.set_params(C=1 / (penalty * len(self._labels)))
        self._model.fit(self._rows, self._labels)
        return self._model.coef_.copy(), self._model.intercept_.copy()
