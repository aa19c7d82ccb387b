"""Calibrated probabilities as they would have been at the time, and the choice of the method that makes them.

A window's rows are calibrated by a calibrator fitted on earlier windows' rows whose label was known before its
first test date. `calibration.method: auto` is nested in the same way: in each window the methods are compared by
what they, so fitted, said in earlier windows, and the one chosen is judged in this one.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from signals_core.ml.calibration import Calibrator, Method, calibrator_of
from signals_core.ml.dependence import rows_per_outcome
from signals_core.ml.metrics import log_loss_rows, newey_west_mean
from signals_core.ml.pipeline import labels_of
from signals_core.ml.target import class_shares
from signals_core.ml.validation import PRIOR_COLUMNS, PROBABILITY_COLUMNS

CALIBRATED_COLUMNS = ["calibrated_down", "calibrated_flat", "calibrated_up"]
DEFAULT: Method = "nested"
_METHODS: tuple[Method, ...] = get_args(Method)
_MIN_Z = 1.0
"""Standard errors by which another method must beat the default: below that the difference is mostly noise."""


@dataclass(frozen=True)
class MethodChoice:
    """The method that calibrates the model, and what the choice rests on."""

    method: Method
    asked: str
    """`calibration.method`: a method, or auto."""
    gain_over_raw: dict[str, dict[str, float]]
    """By method, the mean gain in log-loss over the raw probabilities in later windows, its error, the dates."""
    windows: dict[str, str]
    """By window, the method that calibrated it, chosen by the windows before it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def calibrate_forward(
    pooled: pd.DataFrame, min_rows: int, horizon: int, method: Method | Literal["auto"] = DEFAULT
) -> pd.DataFrame:
    """Add calibrated probabilities as they would have been at the time, for an honest judgement.

    Args:
        pooled: index (symbol, date), columns label, label_end, window, p_down, p_flat, p_up.
        min_rows: windows with fewer earlier rows keep NaN, and so do those before which a class is missing.
        method: auto chooses in each window, see `choose_method`.
    """
    return calibrate_and_choose(pooled, min_rows, horizon, method)[0]


def calibrate_and_choose(
    pooled: pd.DataFrame, min_rows: int, horizon: int, method: Method | Literal["auto"]
) -> tuple[pd.DataFrame, MethodChoice]:
    """`calibrate_forward`, and the method for the model that is trained after the last window."""
    methods = _METHODS if method == "auto" else (method,)
    forward = {name: _forward(pooled, min_rows, horizon, name) for name in methods}
    losses = _losses(pooled, forward)
    used: dict[str, str] = {}
    calibrated = np.full((len(pooled), len(CALIBRATED_COLUMNS)), np.nan)
    for key in sorted(pooled["window"].unique()):
        rows = (pooled["window"] == key).to_numpy()
        if np.isnan(forward[methods[0]][rows]).any():
            continue
        chosen = methods[0] if len(methods) == 1 else choose_method(losses[_known_before(pooled, key)], horizon)
        calibrated[rows], used[key] = forward[chosen][rows], chosen
    final = methods[0] if len(methods) == 1 else choose_method(losses, horizon)
    gains: dict[str, dict[str, float]] = {
        name: asdict(newey_west_mean((losses["raw"] - losses[name]).dropna(), horizon))
        for name in methods
        if losses[name].notna().any()
    }
    frame = pd.DataFrame(calibrated, index=pooled.index, columns=CALIBRATED_COLUMNS)
    return pd.concat([pooled, frame], axis=1), MethodChoice(final, method, gains, used)


def choose_method(losses: pd.DataFrame, horizon: int) -> Method:
    """The method with the least log-loss, if it beats the default by more than the uncertainty; else the default.

    Args:
        losses: index (symbol, date), a column a method: log-loss per row, of calibrators fitted on earlier rows.
    """
    compared = losses.dropna()
    if compared.empty:
        return DEFAULT
    best = min(_METHODS, key=lambda name: newey_west_mean(compared[name], horizon).mean)
    advantage = newey_west_mean(compared[DEFAULT] - compared[best], horizon)
    return best if advantage.dates > 1 and advantage.z > _MIN_Z else DEFAULT


def fit_calibrator(rows: pd.DataFrame, horizon: int, method: Method) -> Calibrator:
    """A calibrator fitted on out-of-fold rows: index (symbol, date), columns label, p_down, p_flat, p_up.

    Raises:
        MissingPrerequisite: a class does not occur.
    """
    labels = labels_of(rows["label"])
    overlap = rows_per_outcome(labels, rows.index.get_level_values("date").to_numpy(), horizon)
    return calibrator_of(method, overlap).fit(rows[PROBABILITY_COLUMNS].to_numpy(), labels)


def _forward(pooled: pd.DataFrame, min_rows: int, horizon: int, method: Method) -> np.ndarray:
    found = np.full((len(pooled), len(CALIBRATED_COLUMNS)), np.nan)
    raw, labels = pooled[PROBABILITY_COLUMNS].to_numpy(), labels_of(pooled["label"])
    for key in sorted(pooled["window"].unique()):
        earlier = _known_before(pooled, key)
        if earlier.sum() < min_rows or (class_shares(labels[earlier]) == 0).any():
            continue
        rows = (pooled["window"] == key).to_numpy()
        found[rows] = fit_calibrator(pooled[earlier], horizon, method).predict_proba(raw[rows])
    return found


def _known_before(pooled: pd.DataFrame, key: str) -> np.ndarray:
    """Rows of earlier windows whose label was known before the first test date of the window `key`."""
    return ((pooled["window"] < key) & (pooled["label_end"] < pd.Timestamp(key))).to_numpy()


def _losses(pooled: pd.DataFrame, forward: dict[Method, np.ndarray]) -> pd.DataFrame:
    labels = labels_of(pooled["label"])
    columns = {"raw": log_loss_rows(pooled[PROBABILITY_COLUMNS].to_numpy(), labels)}
    for name, probabilities in forward.items():
        loss = log_loss_rows(probabilities, labels)
        columns[name] = np.where(np.isnan(probabilities[:, 0]), np.nan, loss)
    return pd.DataFrame(columns, index=pooled.index)


def row_losses(out_of_fold: pd.DataFrame) -> pd.DataFrame:
    """Log-loss per row with the index of `out_of_fold`: columns model (calibrated), raw and prior.

    Only rows that have calibrated probabilities.
    """
    rows = out_of_fold[out_of_fold[CALIBRATED_COLUMNS].notna().all(axis=1)]
    labels = labels_of(rows["label"])
    columns = {"model": CALIBRATED_COLUMNS, "raw": PROBABILITY_COLUMNS, "prior": PRIOR_COLUMNS}
    return pd.DataFrame(
        {name: log_loss_rows(rows[names].to_numpy(), labels) for name, names in columns.items()},
        index=rows.index,
    )
