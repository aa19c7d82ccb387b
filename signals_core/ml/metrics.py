"""Figures of merit for class probabilities, with their uncertainty."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.ml.target import FLAT

_SMALLEST_PROBABILITY = 1e-12
SESSIONS_PER_YEAR = 252


def log_loss_rows(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the log of the probability given to what happened (n,), in nats.

    Args:
        probabilities: (n, k), or (k,) for the same forecast every time.
        labels: (n,) class numbers.
    """
    table = np.broadcast_to(probabilities, (len(labels), np.shape(probabilities)[-1]))
    given = table[np.arange(len(labels)), labels]
    return -np.log(np.maximum(given, _SMALLEST_PROBABILITY))


def split_log_loss_rows(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss by the chain rule, two arrays (n,) that add up to `log_loss_rows`.

    The first is of FLAT or not, which is about volatility; the second of UP against DOWN given that it moved,
    which is about direction, and 0 where it stayed FLAT.
    """
    flat = labels == FLAT
    moved = 1 - probabilities[:, FLAT]
    whether = -np.log(np.maximum(np.where(flat, probabilities[:, FLAT], moved), _SMALLEST_PROBABILITY))
    return whether, log_loss_rows(probabilities, labels) - whether


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error over n dates."""

    mean: float
    standard_error: float
    dates: int

    @property
    def z(self) -> float:
        """The mean in standard errors; 0 where both are 0."""
        if self.standard_error > 0:
            return self.mean / self.standard_error
        return 0.0 if self.mean == 0 else float(np.copysign(np.inf, self.mean))


def newey_west_mean(values: pd.Series, horizon: int) -> Estimate:
    """The mean over dates of a per-row figure, with an error that knows labels overlap.

    Rows are averaged by date; the variance of the mean uses the Bartlett kernel (Newey and West 1987) with
    lag 2 * horizon - 1, since the labels of `horizon` neighbouring dates share returns.

    Args:
        values: index (symbol, date) or date.
    """
    dates = values.index.get_level_values("date")
    daily = values.groupby(dates).mean().to_numpy()
    count = len(daily)
    if count < 2:
        return Estimate(float(daily.mean()) if count else np.nan, np.nan, count)
    centred = daily - daily.mean()
    variance = centred @ centred / count
    lags = min(2 * horizon - 1, count - 1)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (centred[lag:] @ centred[:-lag]) / count
    return Estimate(float(daily.mean()), float(np.sqrt(max(variance, 0) / count)), count)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose likeliest class happened."""
    return float((probabilities.argmax(axis=1) == labels).mean()) if len(labels) else np.nan


def signal_returns(probabilities: pd.DataFrame, trade_return: pd.Series, horizon: int, cost_bps: float) -> pd.Series:
    """Daily net returns of following the signal with overlapping tranches.

    At the close of t each symbol gets a view p_up - p_down; at the next open 1/horizon of the book follows
    it and is held `horizon` sessions. A day's return is the mean over symbols of the tranches' mean view
    times that day's open-to-open return, less `cost_bps` per unit of changed position.

    Args:
        probabilities: index (symbol, date), columns p_down, p_flat, p_up.
        trade_return: same index; open[t+2] / open[t+1] - 1.
    """
    view = (probabilities["p_up"] - probabilities["p_down"]).unstack("symbol").sort_index()
    earned = trade_return.unstack("symbol").reindex_like(view)
    position = view.fillna(0).rolling(horizon, min_periods=1).sum() / horizon
    cost = position.diff().abs().fillna(position.abs()) * cost_bps / 1e4
    return (position * earned - cost).mean(axis=1).dropna()


def sharpe_ratio(daily_returns: pd.Series) -> float:
    """Annualised mean over standard deviation of daily returns; 0 for a constant, NaN for fewer than two."""
    if len(daily_returns) < 2:
        return np.nan
    deviation = float(daily_returns.std())
    return 0.0 if deviation == 0 else float(daily_returns.mean() / deviation * np.sqrt(SESSIONS_PER_YEAR))


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose forecast for a class fell into one interval, and how often that class happened."""

    class_name: str
    rows: int
    forecast: float
    observed: float
    low: float
    high: float
    """95 % Wilson interval of `observed`, for distinct dates / horizon independent observations."""


def reliability(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    horizon: int,
    bins: int = 8,
    dates: np.ndarray | None = None,
) -> list[ReliabilityBin]:
    """Forecast against observed frequency per class, in `bins` groups of about equal size.

    Args:
        dates: of each row (n,): stocks of one date move together, so a group's interval counts its distinct
            dates, not its rows. None takes every row for a date of its own.
    """
    found = []
    for number, name in enumerate(class_names):
        order = np.argsort(probabilities[:, number], kind="stable")
        for rows in np.array_split(order, min(bins, max(len(order), 1))):
            if len(rows) == 0:
                continue
            observed = float((labels[rows] == number).mean())
            independent = len(rows) if dates is None else len(np.unique(dates[rows]))
            low, high = _wilson(observed, max(independent / horizon, 1))
            forecast = float(probabilities[rows, number].mean())
            found.append(ReliabilityBin(name, len(rows), forecast, observed, low, high))
    return found


def classwise_ece(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error, averaged over classes: the mean |observed - forecast| over rows."""
    rows = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.observed - b.forecast) for b in bins) / rows if rows else np.nan


def _wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    # Wilson 1927, the score interval of a proportion.
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(centre - half), float(centre + half)
