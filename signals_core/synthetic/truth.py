"""What can be known at best about a synthetic market, in closed form."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.ml.target import CLASSES
from signals_core.settings import MLSettings

_QUADRATURE_NODES = 64
"""Of Gauss and Hermite; the gain of an IC of .3 is exact to 12 digits with half of them."""
TRUTH_COLUMNS = ["p_down", "p_flat", "p_up"]


def class_probabilities(mean: np.ndarray | float, deviation: np.ndarray | float, ml: MLSettings) -> np.ndarray:
    """P(DOWN), P(FLAT), P(UP) (n, 3) of exp(R) - 1 where R is normal, against the thresholds of the label.

    Args:
        mean: of the log return over the horizon (n,), or one number.
        deviation: its standard deviation.
        ml: up_threshold and down_threshold, of the simple return.
    """
    from scipy.special import ndtr

    mean, deviation = np.broadcast_arrays(np.atleast_1d(mean), np.atleast_1d(deviation))
    down = ndtr((np.log1p(ml.down_threshold) - mean) / deviation)
    up = ndtr((mean - np.log1p(ml.up_threshold)) / deviation)
    return np.column_stack([down, 1 - down - up, up])


def expected_gain_rows(truth: np.ndarray, forecast: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What a forecast gains over a reference forecast in expectation (n,): sum_k p_k log(forecast_k / reference_k).

    With p the Bayes probabilities of each row this is the log-loss gain without the luck of the labels, whose
    mean it is: forecasts made at t cannot depend on what happens after t but through what p knows already.
    """
    return np.asarray((truth * (np.log(forecast) - np.log(reference))).sum(axis=1))


@dataclass(frozen=True)
class NormalTruth:
    """Symbols of one constant volatility, with or without a planted drift.

    In units of the daily volatility v, a session's log return is
        r[t+1] = -v^2/2 + v (drift_loading s[t] + gap_loading s[t+1] + noise e[t+1]),
    where s is an AR(1) of unit variance for each symbol, and e is standard normal, independent of s. The gap
    at the open of t+1 is v gap_loading s[t+1] exactly, so that s[t] is known at the close of t, and as s is a
    Markov process nothing else that is known then helps: the probabilities given s[t] are Bayes'.
    """

    signal: pd.DataFrame
    """s: index `date`, one column a symbol; 0 where nothing is planted."""
    daily_volatility: float
    drift_loading: float
    gap_loading: float
    noise: float
    persistence: float

    def forward_moments(self, horizon: int) -> tuple[float, float]:
        """(m, d): given s[t], the log return over h sessions is normal with mean -h v^2/2 + m s[t] and deviation d.

        The return is the sum over k = 0..h of c_k s[t+k] and of h noises, with c_0 = drift_loading, c_h =
        gap_loading and their sum in between. With s[t+k] = a^k s[t] + sum_j a^(k-j) sqrt(1-a^2) z[j],
        m = v sum_k c_k a^k and d^2 = v^2 ((1-a^2) sum_{j=1..h} (sum_{k=j..h} c_k a^(k-j))^2 + h noise^2).
        """
        loadings = np.full(horizon + 1, self.drift_loading + self.gap_loading)
        loadings[0], loadings[-1] = self.drift_loading, self.gap_loading
        powers = self.persistence ** np.arange(horizon + 1)
        later = np.array([loadings[j:] @ powers[: horizon + 1 - j] for j in range(1, horizon + 1)])
        variance = (1 - self.persistence**2) * (later @ later) + horizon * self.noise**2
        return self.daily_volatility * float(loadings @ powers), self.daily_volatility * float(np.sqrt(variance))

    def information_coefficient(self, horizon: int) -> float:
        """The correlation of s[t] with the log return of the next `horizon` sessions."""
        slope, deviation = self.forward_moments(horizon)
        return slope / float(np.hypot(slope, deviation))

    def probabilities(self, ml: MLSettings) -> pd.DataFrame:
        """Bayes' P(DOWN), P(FLAT), P(UP) at every close: index (symbol, date), columns p_down, p_flat, p_up."""
        rows = self.signal.T.stack().rename_axis(["symbol", "date"])
        return pd.DataFrame(self._given(rows.to_numpy(), ml), index=rows.index, columns=TRUTH_COLUMNS)

    def prior(self, ml: MLSettings) -> np.ndarray:
        """The class probabilities (3,) of one who does not know s."""
        slope, deviation = self.forward_moments(ml.prediction_horizon)
        mean = -ml.prediction_horizon * self.daily_volatility**2 / 2
        return class_probabilities(mean, float(np.hypot(slope, deviation)), ml)[0]

    def bayes_gain(self, ml: MLSettings) -> float:
        """The log-loss gain over the prior, in nats, of one who knows s: the mutual information of s and the label."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
        given = self._given(nodes, ml)
        gains = expected_gain_rows(given, given, np.broadcast_to(self.prior(ml), (len(nodes), len(CLASSES))))
        return float(weights @ gains / weights.sum())

    def _given(self, signal: np.ndarray, ml: MLSettings) -> np.ndarray:
        slope, deviation = self.forward_moments(ml.prediction_horizon)
        mean = -ml.prediction_horizon * self.daily_volatility**2 / 2
        return class_probabilities(mean + slope * signal, deviation, ml)


@dataclass(frozen=True)
class VolatilityTruth:
    """Symbols whose volatility moves and whose direction nobody can know: every price is a martingale."""

    volatility: pd.DataFrame
    """The standard deviation of each session's log return, fixed before it: index `date`, one column a symbol."""

    def probabilities_given_path(self, ml: MLSettings) -> pd.DataFrame:
        """P(DOWN), P(FLAT), P(UP) at t given the volatility of the next h sessions, which is more than anybody knows.

        Given the path the log return is normal with variance S, the sum of the sessions' variances, and mean
        -S/2. Index (symbol, date), columns p_down, p_flat, p_up; the last h sessions of a symbol are left out.
        """
        horizon = ml.prediction_horizon
        variance = (self.volatility**2).rolling(horizon).sum().shift(-horizon).iloc[:-horizon]
        rows = variance.T.stack().rename_axis(["symbol", "date"])
        total = rows.to_numpy()
        return pd.DataFrame(
            class_probabilities(-total / 2, np.sqrt(total), ml), index=rows.index, columns=TRUTH_COLUMNS
        )
