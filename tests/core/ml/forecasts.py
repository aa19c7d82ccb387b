"""Forecasts that are exactly right, and returns that follow them: correlated symbols, overlapping labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

EDGE = 0.5244
"""Of a standard normal return beyond +-EDGE: class shares .30, .40, .30."""


@dataclass(frozen=True)
class Forecasts:
    probabilities: np.ndarray
    labels: np.ndarray
    index: pd.MultiIndex
    returns: np.ndarray
    """Over the horizon, standard normal before the forecast."""

    @property
    def dates(self) -> np.ndarray:
        return self.index.get_level_values("date").to_numpy()

    def frame(self) -> pd.DataFrame:
        """As out-of-fold rows."""
        columns = dict(zip(["p_down", "p_flat", "p_up"], self.probabilities.T, strict=True))
        return pd.DataFrame({"label": self.labels, **columns}, index=self.index)


def true_forecasts(
    dates: int, symbols: int, seed: int, skill: float = 0.2, correlation: float = 0.3, horizon: int = 5
) -> Forecasts:
    """The h-session return is skill * view + sqrt(1 - skill^2) * the scaled sum of h daily shocks.

    Shocks of two symbols correlate by `correlation`; views persist (autocorrelation .9) and do not correlate.
    """
    random = np.random.default_rng(seed)
    view = np.empty((dates, symbols))
    view[0] = random.normal(size=symbols)
    for day in range(1, dates):
        view[day] = 0.9 * view[day - 1] + np.sqrt(1 - 0.9**2) * random.normal(size=symbols)
    shocks = np.sqrt(correlation) * random.normal(size=(dates + horizon - 1, 1))
    shocks = shocks + np.sqrt(1 - correlation) * random.normal(size=(dates + horizon - 1, symbols))
    summed = np.lib.stride_tricks.sliding_window_view(shocks, horizon, axis=0).sum(axis=-1) / np.sqrt(horizon)
    noise = np.sqrt(1 - skill**2)
    returns = skill * view + noise * summed
    below, above = norm.cdf((-EDGE - skill * view) / noise), norm.sf((EDGE - skill * view) / noise)
    probabilities = np.stack([below, 1 - below - above, above], axis=-1)
    labels = np.digitize(returns, [-EDGE, EDGE])
    days = pd.bdate_range("2000-01-03", periods=dates, name="date")
    index = pd.MultiIndex.from_product([days, [f"S{i:03}" for i in range(symbols)]], names=["date", "symbol"])
    return Forecasts(probabilities.reshape(-1, 3), labels.ravel(), index.swaplevel(), returns.ravel())


def distorted(table: np.ndarray, factor: float = 1.0, bias: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """The forecasts of a model whose log-probabilities are `factor` times too large, with odds off by `bias`."""
    raised = table**factor * np.array(bias)
    return raised / raised.sum(axis=1, keepdims=True)
