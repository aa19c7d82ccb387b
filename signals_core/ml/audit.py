"""Proof by index and by perturbation that nothing is learned from what could not be known.

A score cannot show it: most leaks change the pooled log-loss by less than its error. So what was unknown is
exchanged for something else, and the result must not change by a bit; and rows are compared by their dates.
Each function returns what is wrong, as texts; nothing is empty.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import pandas as pd

from signals_core.ml.splits import Window
from signals_core.ml.target import CLASSES, NO_LABEL
from signals_core.ml.training import CALIBRATED_COLUMNS
from signals_core.ml.validation import PROBABILITY_COLUMNS, WindowResult

Calibrate = Callable[[pd.DataFrame, int, int], pd.DataFrame]


class WindowRunner(Protocol):
    """Whatever computes a window, such as `WalkForwardValidator`."""

    def run_window(self, window: Window, features: pd.DataFrame, target: pd.DataFrame) -> WindowResult:
        """Tune and train on the window's training rows, predict its test rows."""
        ...


_FUTURES = 3
"""A choice between few trials can come out the same by luck."""
_OTHER_SCALE = -3.0
_LEARNED = ("params", "rounds", "prior", "train_rows", "feature_group", "tuning_log_loss")
_OUTCOMES = ["label", "label_end", "forward_return"]
"""Of the out-of-fold rows; all other columns are predictions, of the model and of its challengers."""


def audit_window(runner: WindowRunner, window: Window, features: pd.DataFrame, target: pd.DataFrame) -> list[str]:
    """What of a window's model, or of its predictions in the first half of the test, depends on the test's outcome.

    The window is computed with the past as it is and several other futures: every label that became known at
    the test's start or later is drawn anew, and the features of the test's second half are turned round and
    stretched.

    Args:
        runner: computes the window.
        window: a window of the panel.
        features: index (symbol, date).
        target: same index; the frame of `make_target`.
    """
    half = pd.Timestamp(window.test_start) + (window.test_end - window.test_start) / 2
    once = runner.run_window(window, features, target)
    for seed in range(_FUTURES):
        other = _another_future(features, target, pd.Timestamp(window.test_start), half, seed)
        found = _differences(once, runner.run_window(window, *other), half)
        if found:
            return found
    return []


def _differences(once: WindowResult, again: WindowResult, before: pd.Timestamp) -> list[str]:
    found = [f"{name} of the model" for name in _LEARNED if getattr(once, name) != getattr(again, name)]
    rows = []
    for result in (once, again):
        dates = result.out_of_fold.index.get_level_values("date")
        rows.append(result.out_of_fold[dates < before].drop(columns=_OUTCOMES))
    if not rows[0].index.equals(rows[1].index):
        return [*found, "which rows are tested"]
    changed = (rows[0].to_numpy() != rows[1].to_numpy()).any(axis=1)
    if changed.any():
        symbol, day = rows[0].index[int(changed.argmax())]
        found.append(f"{changed.sum()} of {len(changed)} predictions, the first of {symbol} on {day.date()}")
    return found


def _another_future(
    features: pd.DataFrame, target: pd.DataFrame, start: pd.Timestamp, half: pd.Timestamp, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    unknown = (target["label_end"] >= start).to_numpy()
    other = target.copy()
    other.loc[unknown, "label"] = _other_labels(target.loc[unknown, "label"], seed)
    for name in ("forward_return", "trade_return"):
        other.loc[unknown, name] = -target.loc[unknown, name]
    factor = np.where(features.index.get_level_values("date") >= half, _OTHER_SCALE, 1.0)
    return features.mul(factor.astype("float32"), axis=0), other


def _other_labels(labels: pd.Series, seed: int) -> pd.Series:
    # Drawn, not exchanged by a rule: a model of renamed classes is the same model.
    drawn = np.random.default_rng(seed).integers(0, len(CLASSES), len(labels))
    return labels.where(labels == NO_LABEL, drawn).astype(labels.dtype)


def audit_split(target: pd.DataFrame, fit: np.ndarray, score: np.ndarray) -> list[str]:
    """What is wrong with a split of a training period into rows to fit on and rows to score trials on.

    Args:
        target: index (symbol, date), column label_end.
        fit: boolean rows (n,).
        score: boolean rows (n,).
    """
    dates = target.index.get_level_values("date")
    found = []
    if (fit & score).any():
        found.append(f"{(fit & score).sum()} rows are on both sides")
    shared = dates[fit].unique().intersection(dates[score].unique())
    if len(shared):
        found.append(f"{len(shared)} dates are split, the first {shared.min().date()}")
    first = dates[score].min()
    reaching = fit & (target["label_end"] >= first).to_numpy()
    if reaching.any():
        found.append(
            f"{reaching.sum()} fitted rows have a label that ends on {first.date()}, the first scored, or later"
        )
    return found


def audit_calibration(calibrate: Calibrate, pooled: pd.DataFrame, min_rows: int, horizon: int) -> list[str]:
    """What of the calibrated probabilities depends on labels or forecasts that came later.

    For each window but the first, every label that became known at its start or later is drawn anew and later
    windows' forecasts are turned round; the calibrated rows of the window and of earlier ones must stay.

    Args:
        calibrate: adds calibrated columns, such as `calibrate_forward`.
        pooled: out-of-fold rows of `pool_out_of_fold`.
        min_rows: of `calibrate`, as horizon.
        horizon: sessions.
    """
    once, found = calibrate(pooled, min_rows, horizon), []
    if once[CALIBRATED_COLUMNS].isna().all(axis=None):
        return ["nothing was calibrated, so that nothing can be said"]
    for key in sorted(pooled["window"].unique())[1:]:
        other = pooled.copy()
        unknown = (pooled["label_end"] >= pd.Timestamp(key)).to_numpy()
        other.loc[unknown, "label"] = _other_labels(pooled.loc[unknown, "label"], 0)
        later = (pooled["window"] > key).to_numpy()
        other.loc[later, PROBABILITY_COLUMNS] = pooled.loc[later, PROBABILITY_COLUMNS[::-1]].to_numpy()
        again = calibrate(other, min_rows, horizon)
        before, after = (frame.loc[~later, CALIBRATED_COLUMNS].to_numpy() for frame in (once, again))
        changed = ~(np.isclose(before, after, rtol=0, atol=0, equal_nan=True).all(axis=1))
        if changed.any():
            found.append(f"{changed.sum()} calibrated rows up to window {key}")
    return found
