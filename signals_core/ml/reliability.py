"""Whether probabilities mean what they say: reliability by groups, calibration error, and what chance would show."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.ml.dependence import draw_labels, independent_rows, intraclass_correlation, latent_correlation

BINS = 8
DRAWS = 200
"""Of labels from the forecasts: enough for the mean to 2 % and a usable 95 % point."""
_HIGH = 0.95


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose forecast for a class fell into one interval, and how often that class happened."""

    class_name: str
    rows: int
    forecast: float
    observed: float
    low: float
    high: float
    """95 % Wilson interval of `observed`, for the number of independent observations among the rows."""


def reliability(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    horizon: int,
    bins: int = BINS,
    index: pd.MultiIndex | None = None,
) -> list[ReliabilityBin]:
    """Forecast against observed frequency per class, in `bins` groups of about equal size.

    Args:
        index: (symbol, date) of each row: labels of neighbouring dates overlap and symbols move together, so
            a group's interval counts as many observations as are independent. None takes one in `horizon`.
    """
    if index is not None:
        dates = index.get_level_values("date").to_numpy()
        date_of = np.unique(dates, return_inverse=True)[1]
        symbol_of = np.unique(index.get_level_values("symbol"), return_inverse=True)[1]
    found = []
    for number, name in enumerate(class_names):
        happened = labels == number
        correlation = 0.0 if index is None else max(intraclass_correlation(happened * 1.0, dates), 0.0)
        order = np.argsort(probabilities[:, number], kind="stable")
        for rows in np.array_split(order, min(bins, max(len(order), 1))):
            if len(rows) == 0:
                continue
            if index is None:
                independent = max(len(rows) / horizon, 1)
            else:
                independent = independent_rows(date_of[rows], symbol_of[rows], horizon, correlation)
            observed = float(happened[rows].mean())
            low, high = wilson_interval(observed, independent)
            forecast = float(probabilities[rows, number].mean())
            found.append(ReliabilityBin(name, len(rows), forecast, observed, low, high))
    return found


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration errors, each beside what a model that is right would show on as many rows."""

    classwise: float
    """Mean |observed - forecast| over the groups of each class, then over classes (Kull et al. 2019)."""
    classwise_chance: float
    classwise_chance_high: float
    """The mean and the 95 % point for true forecasts, from labels drawn with the forecasts' own probabilities."""
    top_label: float
    """The same for the likeliest class and whether it happened (Guo et al. 2017)."""
    top_label_chance: float
    top_label_chance_high: float


def calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    index: pd.MultiIndex,
    horizon: int,
    bins: int = BINS,
    draws: int = DRAWS,
    seed: int = 0,
) -> CalibrationError:
    """Classwise and top-label error in groups of about equal size, and the same of a model that is right.

    A right model's error is not 0: groups are finite, dates overlap and symbols move together. Labels drawn
    from the forecasts with that dependence (`draw_labels`) say what it would be.

    Args:
        probabilities: (n, k) with n >= 1, classes from the lowest return to the highest.
        labels: (n,) class numbers.
        index: (symbol, date) of each row.
    """
    groups = _Groups(probabilities, bins)
    correlation = latent_correlation(labels, index.get_level_values("date").to_numpy())
    drawn = draw_labels(probabilities, index, horizon, correlation, draws, seed)
    chance = np.array([groups.errors(fallen) for fallen in drawn])
    (classwise, top_label), mean, high = groups.errors(labels), chance.mean(axis=0), np.quantile(chance, _HIGH, axis=0)
    return CalibrationError(classwise, float(mean[0]), float(high[0]), top_label, float(mean[1]), float(high[1]))


class _Groups:
    """Rows in groups of about equal size by forecast, for each class and for the likeliest."""

    def __init__(self, probabilities: np.ndarray, bins: int) -> None:
        self._likeliest = probabilities.argmax(axis=1)
        forecasts = [*probabilities.T, probabilities.max(axis=1)]
        self._of_row = [_equal_groups(forecast, bins) for forecast in forecasts]
        self._expected = [
            np.bincount(group, weights=forecast) for group, forecast in zip(self._of_row, forecasts, strict=True)
        ]

    def errors(self, labels: np.ndarray) -> tuple[float, float]:
        """Classwise and top-label: the mean over rows of their group's |observed - forecast|."""
        happened = [*(labels == number for number in range(len(self._of_row) - 1)), labels == self._likeliest]
        *classes, top = (
            np.abs(np.bincount(group[hit], minlength=len(expected)) - expected).sum() / len(labels)
            for group, hit, expected in zip(self._of_row, happened, self._expected, strict=True)
        )
        return float(np.mean(classes)), float(top)


def _equal_groups(forecast: np.ndarray, bins: int) -> np.ndarray:
    group = np.empty(len(forecast), dtype="int64")
    for number, rows in enumerate(np.array_split(np.argsort(forecast, kind="stable"), min(bins, len(forecast)))):
        group[rows] = number
    return group


def classwise_ece(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error of groups made already, averaged over classes; NaN without rows."""
    rows = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.observed - b.forecast) for b in bins) / rows if rows else np.nan


def wilson_interval(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a proportion of n independent observations (Wilson 1927)."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(centre - half), float(centre + half)
