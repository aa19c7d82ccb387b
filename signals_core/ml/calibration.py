"""Calibrators of three-class probabilities: sigmoid (Platt), temperature with class bias, Dirichlet. Plain JSON state.

All of them map log-probabilities linearly before they normalise, and all have a prior around "the model is
right as it is" (normal near it, exponential far from it), weighed against rows / `overlap` independent
observations: few outcomes say little about how wrong a model is, and a free fit to them would on average make
right forecasts worse. Fit them on out-of-fold predictions only.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np

from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.ml.target import CLASSES

_EPSILON = 1e-6
_NEUTRAL = 1 / len(CLASSES)
FORMAT = 1

Method = Literal["sigmoid", "temperature", "dirichlet"]

_SLOPE_SPREAD = 0.5
"""Standard deviation of the prior of slopes around 1: two models in three are between half and 1.5 times as sure
as they should be. Forecasts that hardly vary say nothing about the slope, and a free one would amplify noise."""
_BIAS_SPREAD = 0.1
"""Of biases around 0, in log-odds: a class share of .30 that should have been .28 or .32. A year of one symbol's
labels, 50 independent outcomes, scatters three times as much without any bias."""
_CROSS_SPREAD = 0.15
"""Of the Dirichlet map's influences of one class' probability on another class around 0."""


class Calibrator(Protocol):
    """What serves a model: a fitted map of probabilities, and its state."""

    rows: int

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> Self:
        """Fit on out-of-fold probabilities (n, 3) and labels (n,)."""

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, 3) that sum to one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""


def calibrator_of(method: Method, overlap: float) -> Calibrator:
    """An unfitted calibrator of a method."""
    return _METHODS[method](overlap=overlap)


def read_calibrator(state: dict[str, Any]) -> Calibrator:
    """The calibrator of a `to_dict`, of whichever method.

    Raises:
        BundleError: the state is of an unknown format or method, or its numbers are not what that needs.
    """
    method = state.get("method")
    if state.get("format") != FORMAT or method not in _METHODS:
        raise BundleError(
            f"calibrator of format {state.get('format')!r}, method {method!r}; "
            f"this version reads format {FORMAT}, {', '.join(_METHODS)}"
        )
    return _METHODS[method].from_dict(state)


@dataclass
class ConfidenceCalibrator:
    """One sigmoid a class (Platt 1999), one against the rest, then normalised: the default.

    P(class | p) is 1 / (1 + exp(-(slope * logit p + intercept))). The slope is held at 0 or above: a calibrator
    may say that a model knows nothing, never that it is right when it says the opposite.
    """

    slopes: np.ndarray | None = None
    intercepts: np.ndarray | None = None
    rows: int = 0
    overlap: float = 5
    """Rows that share about one independent outcome, see `signals_core.ml.dependence.rows_per_outcome`."""
    slope_spread: float = _SLOPE_SPREAD
    bias_spread: float = _BIAS_SPREAD

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> "ConfidenceCalibrator":
        """Fit on out-of-fold probabilities (n, 3) and labels (n,).

        Raises:
            MissingPrerequisite: a class does not occur.
        """
        from scipy.optimize import minimize

        _check_classes(labels)
        # Measured from the forecast that knows nothing: a wrong slope alone leaves that one where it is.
        neutral = float(np.log(_NEUTRAL / (1 - _NEUTRAL)))
        logits = _logits(probabilities) - neutral
        slopes, biases = np.empty(len(CLASSES)), np.empty(len(CLASSES))
        spread, weight = np.array([self.slope_spread, self.bias_spread]), self.overlap / len(labels)
        for number in range(len(CLASSES)):
            happened = labels == number
            positives = int(happened.sum())
            # Platt's targets: a class seen n times is not certain at the edge of the data.
            high, low = (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
            solution = minimize(
                _platt_loss,
                x0=np.array([1.0, 0.0]),
                args=(logits[:, number], np.where(happened, high, low), neutral, spread, weight),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0.0, None), (None, None)],
            )
            slopes[number], biases[number] = solution.x
        self.slopes, self.intercepts, self.rows = slopes, neutral * (1 - slopes) + biases, len(labels)
        return self

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, 3) that sum to one.

        Raises:
            MissingPrerequisite: the calibrator was not fitted.
        """
        slopes, intercepts = _fitted(self.slopes, self.intercepts)
        separate = 1 / (1 + np.exp(-(_logits(probabilities) * slopes + intercepts)))
        return separate / separate.sum(axis=1, keepdims=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        slopes, intercepts = _fitted(self.slopes, self.intercepts)
        return _state("sigmoid", self.rows, slopes=slopes, intercepts=intercepts)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "ConfidenceCalibrator":
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not three finite ones.
        """
        found = _read(state, "sigmoid", slopes=(len(CLASSES),), intercepts=(len(CLASSES),))
        return cls(found["slopes"], found["intercepts"], int(state["rows"]))


@dataclass
class TemperatureCalibrator:
    """One temperature for all classes (Guo et al. 2017) and a bias for each: softmax(slope * log p + bias).

    The slope is 1 / temperature and held at 0 or above. Four numbers: for few rows.
    """

    slope: np.ndarray | None = None
    """(1,)"""
    biases: np.ndarray | None = None
    rows: int = 0
    overlap: float = 5
    slope_spread: float = _SLOPE_SPREAD
    bias_spread: float = _BIAS_SPREAD

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> "TemperatureCalibrator":
        """Fit on out-of-fold probabilities (n, 3) and labels (n,).

        Raises:
            MissingPrerequisite: a class does not occur.
        """
        from scipy.optimize import minimize

        _check_classes(labels)
        logs, happened = _logs(probabilities), np.eye(len(CLASSES))[labels]
        spread = np.array([self.slope_spread, *[self.bias_spread] * len(CLASSES)])
        weight, start = self.overlap / len(labels), np.array([1.0, 0.0, 0.0, 0.0])

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, residual = _softmax_loss(x[0] * logs + x[1:], happened)
            gradient = np.array([(residual * logs).sum(), *residual.sum(axis=0)])
            prior, pull = _prior(x - start, spread)
            return value + weight * prior, gradient + weight * pull

        bounds = [(0.0, None), *[(None, None)] * len(CLASSES)]
        solution = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        self.slope, self.biases, self.rows = solution.x[:1], solution.x[1:], len(labels)
        return self

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, 3) that sum to one.

        Raises:
            MissingPrerequisite: the calibrator was not fitted.
        """
        slope, biases = _fitted(self.slope, self.biases)
        return _softmax(slope * _logs(probabilities) + biases)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        slope, biases = _fitted(self.slope, self.biases)
        return _state("temperature", self.rows, slope=slope, biases=biases)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "TemperatureCalibrator":
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not four finite ones.
        """
        found = _read(state, "temperature", slope=(1,), biases=(len(CLASSES),))
        return cls(found["slope"], found["biases"], int(state["rows"]))


@dataclass
class DirichletCalibrator:
    """Dirichlet calibration (Kull et al. 2019): softmax(weights @ log p + biases). Twelve numbers: for many rows.

    It can also say that what went to one class belonged to another. Off-diagonal weights and biases are
    regularised apart from the diagonal, as their ODIR does, and the diagonal towards 1. The diagonal is at least 0
    and the largest of its column, so that a class never becomes less likely where the model says it is more so.
    """

    weights: np.ndarray | None = None
    """(3, 3): of log p of the class of the column, on the class of the row."""
    biases: np.ndarray | None = None
    rows: int = 0
    overlap: float = 5
    slope_spread: float = _SLOPE_SPREAD
    cross_spread: float = _CROSS_SPREAD
    bias_spread: float = _BIAS_SPREAD

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> "DirichletCalibrator":
        """Fit on out-of-fold probabilities (n, 3) and labels (n,).

        Raises:
            MissingPrerequisite: a class does not occur.
        """
        from scipy.optimize import minimize

        _check_classes(labels)
        logs, happened = _logs(probabilities), np.eye(len(CLASSES))[labels]
        # Measured from the forecast that knows nothing: wrong weights alone leave that one where it is.
        neutral = float(np.log(_NEUTRAL))
        design = np.column_stack([logs - neutral, np.ones(len(logs))])
        diagonal = np.eye(len(CLASSES), len(CLASSES) + 1, dtype=bool)
        bias = np.zeros_like(diagonal)
        bias[:, -1] = True
        spread = np.where(diagonal, self.slope_spread, np.where(bias, self.bias_spread, self.cross_spread)).ravel()
        weight, identity = self.overlap / len(labels), diagonal.ravel() * 1.0
        free = _from_free_numbers()

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            weights = free @ x
            value, residual = _softmax_loss(design @ weights.reshape(diagonal.shape).T, happened)
            prior, pull = _prior(weights - identity, spread)
            return value + weight * prior, free.T @ ((residual.T @ design).ravel() + weight * pull)

        bounds = [(None, None) if is_bias else (0.0, None) for is_bias in bias.ravel()]
        solution = minimize(loss, np.linalg.solve(free, identity), jac=True, method="L-BFGS-B", bounds=bounds)
        found = (free @ solution.x).reshape(diagonal.shape)
        self.weights, self.rows = found[:, :-1], len(labels)
        self.biases = found[:, -1] - neutral * self.weights.sum(axis=1)
        return self

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, 3) that sum to one.

        Raises:
            MissingPrerequisite: the calibrator was not fitted.
        """
        weights, biases = _fitted(self.weights, self.biases)
        return _softmax(_logs(probabilities) @ weights.T + biases)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        weights, biases = _fitted(self.weights, self.biases)
        return _state("dirichlet", self.rows, weights=weights, biases=biases)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "DirichletCalibrator":
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not twelve finite ones.
        """
        found = _read(state, "dirichlet", weights=(len(CLASSES), len(CLASSES)), biases=(len(CLASSES),))
        return cls(found["weights"], found["biases"], int(state["rows"]))


_METHODS: dict[str, Any] = {
    "sigmoid": ConfidenceCalibrator,
    "temperature": TemperatureCalibrator,
    "dirichlet": DirichletCalibrator,
}


def _check_classes(labels: np.ndarray) -> None:
    absent = [name for number, name in enumerate(CLASSES) if not (labels == number).any()]
    if absent:
        raise MissingPrerequisite(f"calibration rows hold no {', '.join(absent)}: give it more windows")


def _fitted(first: np.ndarray | None, second: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if first is None or second is None:
        raise MissingPrerequisite("the calibrator is not fitted: call fit with out-of-fold predictions")
    return first, second


def _state(method: str, rows: int, **numbers: np.ndarray) -> dict[str, Any]:
    plain = {name: values.tolist() for name, values in numbers.items()}
    return {"format": FORMAT, "method": method, "classes": list(CLASSES), **plain, "rows": rows}


def _read(state: dict[str, Any], method: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    if state.get("format") != FORMAT or state.get("method") != method:
        raise BundleError(
            f"calibrator of format {state.get('format')!r}, method {state.get('method')!r}; "
            f"expected format {FORMAT}, {method}"
        )
    absent = [key for key in ("classes", *shapes, "rows") if key not in state]
    if absent:
        raise BundleError(f"calibrator lacks {', '.join(absent)}")
    if state["classes"] != list(CLASSES):
        raise BundleError(f"calibrator is for the classes {state['classes']}, not {list(CLASSES)}")
    found = {}
    for name, shape in shapes.items():
        try:
            found[name] = np.asarray(state[name], dtype="float64")
        except (TypeError, ValueError):
            raise BundleError(f"calibrator's {name} are no numbers") from None
        if found[name].shape != shape:
            raise BundleError(f"calibrator needs {' x '.join(map(str, shape))} {name}, not {found[name].shape}")
        if not np.isfinite(found[name]).all():
            raise BundleError(f"calibrator's {name} hold numbers that are not finite")
    return found


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities, _EPSILON, 1))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    return np.log(clipped / (1 - clipped))


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _softmax_loss(scores: np.ndarray, happened: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean log-loss, and its gradient by the scores (n, 3), already divided by n."""
    probabilities = _softmax(scores)
    value = -np.log(np.maximum((probabilities * happened).sum(axis=1), _EPSILON**2)).mean()
    return float(value), (probabilities - happened) / len(happened)


def _prior(away: np.ndarray, spread: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the log of the prior and its gradient: normal near 0, exponential beyond one spread (pseudo-Huber).

    A model that is grossly wrong is not pulled back the harder for it.
    """
    root = np.sqrt(1 + (away / spread) ** 2)
    return float((root - 1).sum()), away / spread**2 / root


def _from_free_numbers() -> np.ndarray:
    """The matrix that makes the Dirichlet map's weights and biases, row by row, from numbers with plain bounds.

    These are the diagonal, by how much an off-diagonal weight is below the diagonal one of its column, and the
    biases: the first two at least 0.
    """
    size = len(CLASSES)
    place = np.arange(size * (size + 1)).reshape(size, size + 1)
    matrix = np.eye(place.size)
    for row in range(size):
        for column in range(size):
            if row != column:
                matrix[place[row, column], place[row, column]] = -1
                matrix[place[row, column], place[column, column]] = 1
    return matrix


def _platt_loss(
    parameters: np.ndarray, logits: np.ndarray, wanted: np.ndarray, neutral: float, spread: np.ndarray, weight: float
) -> tuple[float, np.ndarray]:
    slope, bias = parameters
    score = neutral + slope * logits + bias
    prior, pull = _prior(parameters - np.array([1.0, 0.0]), spread)
    loss = float((np.logaddexp(0, score) - wanted * score).mean()) + weight * prior
    residual = 1 / (1 + np.exp(-score)) - wanted
    return loss, np.array([(residual * logits).mean(), residual.mean()]) + weight * pull
