"""Figures of merit for class probabilities and for the signal they give, with their uncertainty."""

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


def overlap_widening(dates: int, horizon: int) -> float:
    """By what a normal quantile must be multiplied for the error of `newey_west_mean` on few dates; 1 on many.

    The error of a short series with overlapping labels is too small, the more so the larger the share b of the series
    that its lags span. The fixed-b quantiles of the Bartlett kernel (Kiefer and Vogelsang 2005, table 1, 97.5 %), over
    those of the normal distribution: 1.26 for 60 dates and a horizon of 5, 1.01 for 2,000.
    """
    b = min(2 * horizon / dates, 1.0)
    return (1.9600 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3) / 1.9600


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose likeliest class happened."""
    return float((probabilities.argmax(axis=1) == labels).mean()) if len(labels) else np.nan


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose likeliest class happened, averaged over the classes that happened."""
    hit = probabilities.argmax(axis=1) == labels
    return float(np.mean([hit[labels == number].mean() for number in np.unique(labels)])) if len(labels) else np.nan


@dataclass(frozen=True)
class Brier:
    """The Brier score of several classes and its parts, each the sum over the classes.

    score = reliability - resolution + uncertainty + within_variance - within_covariance, exactly.
    """

    score: float
    """Mean over rows of sum over classes of (forecast - happened)^2, between 0 and 2 (Brier 1950)."""
    reliability: float
    """How far groups of equal forecasts are from what happened in them; 0 is best."""
    resolution: float
    """How far what happened in the groups differs from the mean; the larger the better."""
    uncertainty: float
    """The score of the classes' own frequencies."""
    within_variance: float
    within_covariance: float
    """What the forecasts still say inside a group; without these two the identity would only be near."""

    @property
    def generalised_resolution(self) -> float:
        """Resolution with what the forecasts say inside groups: score = reliability - this + uncertainty."""
        return self.resolution - self.within_variance + self.within_covariance

    @property
    def skill(self) -> float:
        """1 - score / uncertainty: 0 for the classes' own frequencies, 1 for certainty; NaN with one class."""
        return 1 - self.score / self.uncertainty if self.uncertainty > 0 else np.nan


def brier(probabilities: np.ndarray, labels: np.ndarray, bins: int = 8) -> Brier:
    """The Brier score with Murphy's decomposition (1973) over groups of about equal size by forecast.

    Forecasts vary inside a group: the two terms of Stephenson, Coelho and Jolliffe (2008) make the identity
    exact.

    Args:
        probabilities: (n, k) with n >= 1.
        labels: (n,) class numbers.
    """
    parts = np.zeros(6)
    rows = len(labels)
    for number in range(probabilities.shape[1]):
        forecast, happened = probabilities[:, number], (labels == number) * 1.0
        mean = happened.mean()
        parts[0] += ((forecast - happened) ** 2).mean()
        parts[3] += mean * (1 - mean)
        for group in np.array_split(np.argsort(forecast, kind="stable"), min(bins, rows)):
            centre, observed = forecast[group].mean(), happened[group].mean()
            spread = forecast[group] - centre
            parts[1] += len(group) * (centre - observed) ** 2 / rows
            parts[2] += len(group) * (observed - mean) ** 2 / rows
            parts[4] += spread @ spread / rows
            parts[5] += 2 * (happened[group] - observed) @ spread / rows
    return Brier(*parts.tolist())


@dataclass(frozen=True)
class InformationCoefficient:
    """How the order of the views agrees with the order of the returns."""

    estimate: Estimate
    across_symbols: bool
    """Daily rank correlation across symbols; False: over time, where no date has two symbols."""


def information_coefficient(view: pd.Series, forward_return: pd.Series, horizon: int) -> InformationCoefficient:
    """Spearman's rank correlation of views with the returns that followed, with a Newey-West error.

    Across the symbols of each date, averaged over dates; a date whose views or returns are all equal counts
    as 0. Where no date has two symbols: over the dates of all rows.

    Args:
        view: index (symbol, date); p_up - p_down, say.
        forward_return: same index; over `horizon` sessions from the date. Rows without one are left out.
    """
    known = view.notna() & forward_return.notna()
    table = pd.DataFrame({"view": view[known], "return": forward_return[known]})
    several = table.groupby(level="date")["view"].transform("size") > 1
    if several.any():
        dates = table[several].groupby(level="date")
        ranks = dates.rank() - dates.rank().groupby(level="date").transform("mean")
        products = pd.DataFrame(
            {
                "both": ranks["view"] * ranks["return"],
                "view": ranks["view"] ** 2,
                "return": ranks["return"] ** 2,
            }
        )
        sums = products.groupby(level="date").sum()
        scale = np.sqrt(sums["view"] * sums["return"])
        daily = (sums["both"] / scale.where(scale > 0)).fillna(0.0)
        return InformationCoefficient(newey_west_mean(daily, horizon), True)
    ranks = table.rank()
    deviations = ranks.std(ddof=0)
    if len(table) < 2 or (deviations == 0).any():
        return InformationCoefficient(Estimate(0.0 if len(table) else np.nan, np.nan, len(table)), False)
    scaled = (ranks - ranks.mean()) / deviations
    product = (scaled["view"] * scaled["return"]).sort_index(level="date")
    return InformationCoefficient(newey_west_mean(product, horizon), False)


def signal_returns(
    probabilities: pd.DataFrame,
    trade_return: pd.Series,
    horizon: int,
    cost_bps: float,
    sessions: pd.DatetimeIndex | None = None,
) -> pd.Series:
    """Daily net returns of following the signal with overlapping tranches.

    At the close of t each symbol gets a view p_up - p_down; at the next open 1/horizon of the book follows
    it and is held `horizon` sessions. A day's return is the mean over symbols of the tranches' mean view
    times that day's open-to-open return, less `cost_bps` per unit of changed position.
    A symbol's days without a known return are left out: it is closed before them, at the same cost, and what of
    its tranches is still to run after them is opened again. So a record pays for every position it takes, to the
    end; that the last tranches would have run on after it is not counted.

    Args:
        probabilities: index (symbol, date), columns p_down, p_flat, p_up.
        trade_return: same index; open[t+2] / open[t+1] - 1.
        sessions: every session of the span, in order. None: the dates of the rows, if none is missing between them.
    """
    view = (probabilities["p_up"] - probabilities["p_down"]).unstack("symbol").sort_index()
    if sessions is not None:
        view = view.reindex(sessions)
    earned = trade_return.unstack("symbol").reindex_like(view)
    known = earned.notna()
    position = (view.fillna(0).rolling(horizon, min_periods=1).sum() / horizon).where(known, 0.0)
    opened = position.diff().abs().fillna(position.abs())
    closed = position.abs().where(~known.shift(-1, fill_value=False), 0.0)
    return (position * earned - (opened + closed) * cost_bps / 1e4).mean(axis=1).dropna()


def sharpe_ratio(daily_returns: pd.Series) -> float:
    """Annualised mean over standard deviation of daily returns; 0 for a constant, NaN for fewer than two."""
    if len(daily_returns) < 2:
        return np.nan
    deviation = float(daily_returns.std())
    return 0.0 if deviation == 0 else float(daily_returns.mean() / deviation * np.sqrt(SESSIONS_PER_YEAR))
