"""Calibrators of three-class probabilities, with plain JSON state: Platt's sigmoids, nested or one a class, temperature
with class bias, Dirichlet.

All of them map log-probabilities linearly before they normalise, and all have a prior around "the model is
right as it is" (normal near it, exponential far from it), weighed against rows / `overlap` independent
observations: few outcomes say little about how wrong a model is, and a free fit to them would on average make
right forecasts worse. Fit them on out-of-fold predictions only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np

from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.ml.calibrator_state import FORMAT, read_state, write_state
from signals_core.ml.linear_scores import (
    fit_sigmoid,
    log_odds,
    log_probabilities,
    prior_loss,
    sigmoid,
    softmax,
    softmax_loss,
)
from signals_core.ml.target import CLASSES, DOWN, FLAT, UP

_NEUTRAL = 1 / len(CLASSES)

Method = Literal["nested", "sigmoid", "temperature", "dirichlet"]

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
class _Sigmoids(ABC):
    """Sigmoids of log-odds (Platt 1999), 1 / (1 + exp(-(slope * log-odds + intercept))), fitted one by one.

    The slopes are held at 0 or above: a calibrator may say that a model knows nothing, never that it is right when it
    says the opposite.
    """

    slopes: np.ndarray | None = None
    """(k,), like the intercepts."""
    intercepts: np.ndarray | None = None
    rows: int = 0
    overlap: float = 5
    """Rows that share about one independent outcome, see `signals_core.ml.dependence.rows_per_outcome`."""
    slope_spread: float = _SLOPE_SPREAD
    bias_spread: float = _BIAS_SPREAD

    method: ClassVar[Method]
    neutral: ClassVar[np.ndarray]
    """(k,) log-odds of the forecast that knows nothing."""

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> Self:
        """Fit on out-of-fold probabilities (n, 3) and labels (n,).

        Raises:
            MissingPrerequisite: a class does not occur.
        """
        _check_classes(labels)
        # Measured from the forecast that knows nothing: a wrong slope alone leaves that one where it is.
        away = self._log_odds(probabilities) - self.neutral
        spread = np.array([self.slope_spread, self.bias_spread])
        fits = [
            fit_sigmoid(away[asked, at], happened[asked], self.neutral[at], spread, self.overlap / asked.sum())
            for at, (asked, happened) in enumerate(self._outcomes(labels))
        ]
        slopes, biases = np.array(fits).T
        self.slopes, self.intercepts, self.rows = slopes, self.neutral * (1 - slopes) + biases, len(labels)
        return self

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, 3) that sum to one.

        Raises:
            MissingPrerequisite: the calibrator was not fitted.
        """
        slopes, intercepts = _fitted(self.slopes, self.intercepts)
        return self._joined(sigmoid(self._log_odds(probabilities) * slopes + intercepts))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        slopes, intercepts = _fitted(self.slopes, self.intercepts)
        return write_state(self.method, self.rows, slopes=slopes, intercepts=intercepts)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not k finite ones.
        """
        found = read_state(state, cls.method, slopes=cls.neutral.shape, intercepts=cls.neutral.shape)
        return cls(found["slopes"], found["intercepts"], int(state["rows"]))

    @abstractmethod
    def _log_odds(self, probabilities: np.ndarray) -> np.ndarray:
        """What each sigmoid maps (n, k)."""

    @abstractmethod
    def _outcomes(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each sigmoid, the rows that answer its question and whether it happened, (n,) bool each."""

    @abstractmethod
    def _joined(self, separate: np.ndarray) -> np.ndarray:
        """Class probabilities (n, 3) from those of the sigmoids (n, k)."""


@dataclass
class ConfidenceCalibrator(_Sigmoids):
    """One sigmoid a class, one against the rest, then normalised."""

    method = "sigmoid"
    neutral = np.full(len(CLASSES), np.log(_NEUTRAL / (1 - _NEUTRAL)))

    def _log_odds(self, probabilities: np.ndarray) -> np.ndarray:
        return log_odds(probabilities)

    def _outcomes(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.ones(len(labels), dtype=bool), labels == number) for number in range(len(CLASSES))]

    def _joined(self, separate: np.ndarray) -> np.ndarray:
        return separate / separate.sum(axis=1, keepdims=True)


@dataclass
class NestedCalibrator(_Sigmoids):
    """Two sigmoids by the chain rule: FLAT against a move, and UP against DOWN of what moved. The default.

    Nested dichotomies (Frank and Kramer 2004). Models know more about volatility than about direction; here one slope
    says how sure they may be of each, where one sigmoid a class confounds the two.
    """

    method = "nested"
    neutral = np.array([np.log(_NEUTRAL / (1 - _NEUTRAL)), 0.0])

    def _log_odds(self, probabilities: np.ndarray) -> np.ndarray:
        return _chain_log_odds(probabilities)

    def _outcomes(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.ones(len(labels), dtype=bool), labels == FLAT), (labels != FLAT, labels == UP)]

    def _joined(self, separate: np.ndarray) -> np.ndarray:
        flat, up = separate.T
        return np.column_stack([(1 - flat) * (1 - up), flat, (1 - flat) * up])


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
        logs, happened = log_probabilities(probabilities), np.eye(len(CLASSES))[labels]
        spread = np.array([self.slope_spread, *[self.bias_spread] * len(CLASSES)])
        weight, start = self.overlap / len(labels), np.array([1.0, 0.0, 0.0, 0.0])

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, residual = softmax_loss(x[0] * logs + x[1:], happened)
            gradient = np.array([(residual * logs).sum(), *residual.sum(axis=0)])
            prior, pull = prior_loss(x - start, spread)
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
        return softmax(slope * log_probabilities(probabilities) + biases)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        slope, biases = _fitted(self.slope, self.biases)
        return write_state("temperature", self.rows, slope=slope, biases=biases)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "TemperatureCalibrator":
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not four finite ones.
        """
        found = read_state(state, "temperature", slope=(1,), biases=(len(CLASSES),))
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
        logs, happened = log_probabilities(probabilities), np.eye(len(CLASSES))[labels]
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
            value, residual = softmax_loss(design @ weights.reshape(diagonal.shape).T, happened)
            prior, pull = prior_loss(weights - identity, spread)
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
        return softmax(log_probabilities(probabilities) @ weights.T + biases)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON state."""
        weights, biases = _fitted(self.weights, self.biases)
        return write_state("dirichlet", self.rows, weights=weights, biases=biases)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "DirichletCalibrator":
        """The calibrator of a `to_dict`.

        Raises:
            BundleError: the state is of another format or method, or its numbers are not twelve finite ones.
        """
        found = read_state(state, "dirichlet", weights=(len(CLASSES), len(CLASSES)), biases=(len(CLASSES),))
        return cls(found["weights"], found["biases"], int(state["rows"]))


_METHODS: dict[str, Any] = {
    "nested": NestedCalibrator,
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


def _chain_log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds (n, 2) of FLAT against a move and of UP against DOWN."""
    logs = log_probabilities(probabilities)
    return np.column_stack([log_odds(probabilities)[:, FLAT], logs[:, UP] - logs[:, DOWN]])


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
