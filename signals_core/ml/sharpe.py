"""Sharpe ratios: how sure one is, and what is left of it after the search that found it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.ml.metrics import SESSIONS_PER_YEAR, newey_west_mean


@dataclass(frozen=True)
class SharpeEstimate:
    """The mean over the standard deviation of daily returns, per day, with its standard error."""

    ratio: float
    standard_error: float
    days: int
    skewness: float
    kurtosis: float
    """Not in excess: 3 for a normal distribution."""

    @property
    def annual(self) -> float:
        """The ratio times the root of 252."""
        return float(self.ratio * np.sqrt(SESSIONS_PER_YEAR))

    @property
    def annual_error(self) -> float:
        """The standard error of `annual`."""
        return float(self.standard_error * np.sqrt(SESSIONS_PER_YEAR))


def sharpe_estimate(daily_returns: pd.Series | np.ndarray, lags: int = 0) -> SharpeEstimate:
    """The Sharpe ratio of daily returns, and an error that knows skewness, fat tails and serial correlation.

    The error is Mertens' (2002) for independent days, times the root of the variance inflation that the
    autocorrelation of the ratio's influence function brings (Lo 2002; Bartlett weights up to `lags`).

    Args:
        daily_returns: (n,); fewer than three, or constant ones, give a ratio of 0 or NaN without an error.
    """
    values = np.asarray(daily_returns, dtype="float64")
    days = len(values)
    if days < 3 or np.ptp(values) == 0:
        constant = days >= 2 and np.ptp(values) == 0
        return SharpeEstimate(0.0 if constant else np.nan, np.nan, days, np.nan, np.nan)
    ratio = float(values.mean() / values.std(ddof=1))
    scaled = (values - values.mean()) / values.std()
    skewness, kurtosis = float((scaled**3).mean()), float((scaled**4).mean())
    influence = scaled - ratio / 2 * (scaled**2 - 1)
    index = pd.RangeIndex(days, name="date")
    independent, serial = (newey_west_mean(pd.Series(influence, index), lag).standard_error for lag in (0, lags))
    error = sharpe_error(ratio, days, skewness, kurtosis) * serial / independent
    return SharpeEstimate(ratio, float(error), days, skewness, kurtosis)


def sharpe_error(ratio: float, periods: int, skewness: float = 0.0, kurtosis: float = 3.0) -> float:
    """The standard error of a Sharpe ratio of independent returns, in the units of `ratio` (Mertens 2002).

    sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio^2) / (periods - 1)), with the divisor of Bailey
    and Lopez de Prado (2012). For normal returns this is Lo's (2002).
    """
    return float(np.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / (periods - 1)))


def probabilistic_sharpe(ratio: float, standard_error: float, benchmark: float = 0.0) -> float:
    """The probability that the true Sharpe ratio exceeds `benchmark` (Bailey and Lopez de Prado 2012).

    All three in the same units, per period or annual; NaN without an error.
    """
    from scipy.special import ndtr

    return float(ndtr((ratio - benchmark) / standard_error)) if standard_error > 0 else np.nan


def expected_maximum_sharpe(trials: int, variance: float) -> float:
    """The largest Sharpe ratio to expect of `trials` independent strategies without skill.

    Bailey and Lopez de Prado (2014), equation of SR_0; 0 for one trial.

    Args:
        variance: of the Sharpe ratios over the trials; the result is in the units of its root.
    """
    from scipy.special import ndtri

    if trials <= 1:
        return 0.0
    low, high = ndtri(1 - 1 / trials), ndtri(1 - 1 / (trials * np.e))
    return float(np.sqrt(variance) * ((1 - np.euler_gamma) * low + np.euler_gamma * high))


def deflated_sharpe(estimate: SharpeEstimate, trials: int, variance: float | None = None) -> float:
    """The probability that the true Sharpe ratio exceeds 0, given that it is the best of `trials`.

    The probabilistic Sharpe ratio against `expected_maximum_sharpe` (Bailey and Lopez de Prado 2014).

    Args:
        trials: every one that was tried, the chosen one included; dependent ones count for less, see
            `signals_core.ml.overfitting.independent_trials`.
        variance: of the daily Sharpe ratios over the trials. None: the square of the estimate's own error,
            which is what independent trials without skill scatter by. Trials of one search are alike: on the same
            days theirs scatter by that times 1 - their correlation, so that this deflates too much rather than too
            little, as long as the trials differ by luck more than by skill.
    """
    spread = estimate.standard_error**2 if variance is None else variance
    return probabilistic_sharpe(estimate.ratio, estimate.standard_error, expected_maximum_sharpe(trials, spread))
