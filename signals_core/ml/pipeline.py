"""MLPipeline: one XGBoost model of three classes, from features and labels to probabilities."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml.metrics import accuracy, log_loss_rows
from signals_core.ml.target import CLASSES, NO_LABEL, class_shares, make_target
from signals_core.settings import MLSettings

if TYPE_CHECKING:
    import xgboost

MAX_BIN = 64
"""Daily features carry no more detail than this; half the time of XGBoost's 256."""
_FIXED = {"tree_method": "hist", "max_bin": MAX_BIN, "nthread": 1, "verbosity": 0}


class MLPipeline:
    """Trains and serves one model; probabilities come in the order DOWN, FLAT, UP.

    With balanced class weights the trees learn as if the classes were equally frequent; `predict` undoes
    that with p proportional to p * prior, so that probabilities mean frequencies.
    """

    def __init__(self, settings: MLSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or MLSettings()
        self.seed = seed
        self.booster: xgboost.Booster | None = None
        self.features: list[str] = []
        self.prior = np.full(len(CLASSES), 1 / len(CLASSES))

    def prepare_target(self, df: pd.DataFrame, close_col: str = "close") -> pd.Series:
        """The label of each row of one symbol's bars, as nullable Int8: 0 DOWN, 1 FLAT, 2 UP.

        The last `prediction_horizon` rows have none (<NA>).
        """
        close = df[close_col]
        label = make_target(pd.DataFrame({"open": close, "close": close}), self.settings)["label"]
        return label.astype("Int8").mask(label == NO_LABEL).rename("label")

    def train(
        self,
        features: pd.DataFrame,
        target: pd.Series,
        params: Mapping[str, Any] | None = None,
        rounds: int | None = None,
    ) -> dict[str, float]:
        """Fit on rows that have a label; columns without a single value are left out.

        Args:
            features: (n, f) float, any index.
            target: (n,) labels with the same index; missing or -1 where there is none.
            params: XGBoost parameters instead of `settings.xgb_params` (then with `rounds`).

        Returns:
            In-sample figures: rows, features, log_loss, accuracy and the class prior's log-loss.

        Raises:
            MissingPrerequisite: fewer labelled rows than `min_training_samples`, or a class is absent.
        """
        import xgboost as xgb

        labels = labels_of(target)
        rows = labels != NO_LABEL
        count = int(rows.sum())
        if count < self.settings.min_training_samples:
            raise MissingPrerequisite(
                f"{count} labelled training rows, ml.min_training_samples asks for "
                f"{self.settings.min_training_samples}: load more history or lower it"
            )
        labels = labels[rows]
        self.prior = class_shares(labels)
        if (self.prior == 0).any():
            absent = ", ".join(n for n, p in zip(CLASSES, self.prior, strict=True) if p == 0)
            raise MissingPrerequisite(f"no training row is {absent}: check ml.up_threshold, ml.down_threshold")
        matrix = features.loc[rows]
        self.features = [str(name) for name in matrix.columns[matrix.notna().any()]]
        training = xgb.QuantileDMatrix(
            matrix[self.features], labels, weight=self.row_weights(labels), max_bin=MAX_BIN, nthread=1
        )
        chosen = booster_params(params or self.settings.xgb_params.model_dump(), self.seed)
        self.booster = xgb.train(chosen, training, rounds or self.settings.xgb_params.n_estimators)
        fitted = self.predict(matrix)
        return {
            "rows": count,
            "features": len(self.features),
            "log_loss": float(log_loss_rows(fitted, labels).mean()),
            "accuracy": accuracy(fitted, labels),
            "prior_log_loss": float(log_loss_rows(self.prior, labels).mean()),
        }

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Probabilities (n, 3) of [DOWN, FLAT, UP], not yet calibrated.

        Raises:
            MissingPrerequisite: nothing was trained or loaded yet.
            DataError: a column the model was trained on is absent.
        """
        import xgboost as xgb

        if self.booster is None:
            raise MissingPrerequisite("there is no model: train or load one first")
        absent = [name for name in self.features if name not in features.columns]
        if absent:
            raise DataError(f"features lack {', '.join(absent)}, which the model was trained on")
        raw = self.booster.predict(xgb.DMatrix(features[self.features], nthread=1)).astype("float64")
        return self.restore_prior(raw)

    def row_weights(self, labels: np.ndarray) -> np.ndarray | None:
        """Training weight of each row: total / (classes * count of its class) if balanced, else None."""
        if self.settings.class_weighting == "none":
            return None
        counts = np.bincount(labels, minlength=len(CLASSES))
        return (len(labels) / (len(CLASSES) * np.maximum(counts, 1)))[labels]

    def restore_prior(self, probabilities: np.ndarray) -> np.ndarray:
        """Undo balanced weights: p proportional to p * prior (n, 3)."""
        if self.settings.class_weighting == "none":
            return probabilities
        weighted = probabilities * self.prior
        return weighted / weighted.sum(axis=1, keepdims=True)


def labels_of(target: pd.Series) -> np.ndarray:
    """Labels as int64 (n,), -1 where missing."""
    return target.astype("Int64").fillna(NO_LABEL).to_numpy(dtype="int64")


def booster_params(params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """XGBoost's native parameters from scikit-learn's names; single-threaded and seeded."""
    native = {name: value for name, value in params.items() if name != "n_estimators"}
    defaults = {"objective": "multi:softprob", "num_class": len(CLASSES), "eval_metric": "mlogloss"}
    return {**defaults, **native, **_FIXED, "seed": seed}
