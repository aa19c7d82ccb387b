"""ConfidenceCalibrator: Platt scaling of three-class probabilities, as plain JSON state."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.ml.target import CLASSES

_EPSILON = 1e-6
FORMAT = 1


@dataclass
class ConfidenceCalibrator:
    """One sigmoid a class (Platt 1999), one against the rest, then normalised.

    P(class | p) is 1 / (1 + exp(-(slope * logit p + intercept))). Fit it on out-of-fold predictions only.
    The slope has a normal prior around 1, "the model is right as it is", of standard deviation
    `slope_spread`, weighed against rows / `overlap` independent observations: forecasts that hardly vary
    say nothing about it, and a free slope would amplify their noise. It is held at 0 or above: a calibrator
    may say that a model knows nothing, never that it is right when it says the opposite.
    """

    slopes: np.ndarray | None = None
    intercepts: np.ndarray | None = None
    rows: int = 0
    overlap: float = 5
    """Rows that share about one independent outcome: the prediction horizon, times the symbols of a date."""
    slope_spread: float = 0.5

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> "ConfidenceCalibrator":
        """Fit on out-of-fold probabilities (n, 3) and labels (n,).

        Raises:
            MissingPrerequisite: a class does not occur.
        """
        from scipy.optimize import minimize

        logits = _logits(probabilities)
        slopes, intercepts = np.empty(len(CLASSES)), np.empty(len(CLASSES))
        for number, name in enumerate(CLASSES):
            happened = labels == number
            positives = int(happened.sum())
            if positives == 0:
                raise MissingPrerequisite(f"calibration rows hold no {name}: give it more windows")
            # Platt's targets: a class seen n times is not certain at the edge of the data.
            high, low = (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
            wanted = np.where(happened, high, low)
            solution = minimize(
                _platt_loss,
                x0=np.array([1.0, 0.0]),
                args=(logits[:, number], wanted, self.overlap / (len(labels) * self.slope_spread**2)),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0.0, None), (None, None)],
            )
            slopes[number], intercepts[number] = solution.x
        self.slopes, self.intercepts, self.rows = slopes, intercepts, len(labels)
        return self

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, 3) that sum to one.

        Raises:
            MissingPrerequisite: the calibrator was not fitted.
        """
        if self.slopes is None or self.intercepts is None:
            raise MissingPrerequisite("the calibrator is not fitted: call fit with out-of-fold predictions")
        separate = 1 / (1 + np.exp(-(_logits(probabilities) * self.slopes + self.intercepts)))
        return separate / separate.sum(axis=1, keepdims=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        if self.slopes is None or self.intercepts is None:
            raise MissingPrerequisite("the calibrator is not fitted: there is no state to store")
        return {
            "format": FORMAT,
            "method": "sigmoid",
            "classes": list(CLASSES),
            "slopes": self.slopes.tolist(),
            "intercepts": self.intercepts.tolist(),
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "ConfidenceCalibrator":
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not three finite ones.
        """
        if state.get("format") != FORMAT or state.get("method") != "sigmoid":
            raise BundleError(
                f"calibrator of format {state.get('format')!r}, method {state.get('method')!r}; "
                f"this version reads format {FORMAT}, sigmoid"
            )
        absent = [key for key in ("classes", "slopes", "intercepts", "rows") if key not in state]
        if absent:
            raise BundleError(f"calibrator lacks {', '.join(absent)}")
        if state["classes"] != list(CLASSES):
            raise BundleError(f"calibrator is for the classes {state['classes']}, not {list(CLASSES)}")
        slopes, intercepts = (np.asarray(state[key], dtype="float64") for key in ("slopes", "intercepts"))
        if slopes.shape != (len(CLASSES),) or intercepts.shape != slopes.shape:
            raise BundleError(f"calibrator needs {len(CLASSES)} slopes and intercepts")
        if not (np.isfinite(slopes).all() and np.isfinite(intercepts).all()):
            raise BundleError("calibrator holds numbers that are not finite")
        return cls(slopes, intercepts, int(state["rows"]))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    return np.log(clipped / (1 - clipped))


def _platt_loss(
    parameters: np.ndarray, logits: np.ndarray, wanted: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    slope, intercept = parameters
    score = slope * logits + intercept
    loss = float((np.logaddexp(0, score) - wanted * score).mean()) + penalty * (slope - 1) ** 2 / 2
    residual = 1 / (1 + np.exp(-score)) - wanted
    return loss, np.array([(residual * logits).mean() + penalty * (slope - 1), residual.mean()])
