"""The figures that a window, a scope or a model is judged by, as plain JSON values; None where one is undefined."""

from typing import Any

import numpy as np
import pandas as pd

from signals_core.ml.metrics import (
    accuracy,
    balanced_accuracy,
    brier,
    information_coefficient,
    signal_returns,
)
from signals_core.ml.reliability import DRAWS, calibration_error
from signals_core.ml.sharpe import deflated_sharpe, probabilistic_sharpe, sharpe_estimate


def probability_figures(
    probabilities: np.ndarray, labels: np.ndarray, index: pd.MultiIndex, horizon: int, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """What the probabilities are worth as forecasts of the classes.

    accuracy, balanced_accuracy; brier and its parts (reliability, resolution with what the forecasts say inside
    groups, uncertainty: brier = reliability - resolution + uncertainty) and brier_skill; classwise_ece and
    top_label_ece, each with `_chance` and `_chance_high`: the mean and the 95 % point of a model that is right.

    Args:
        probabilities: (n, 3) with n >= 1.
        labels: (n,) class numbers.
        index: (symbol, date) of each row, each once.
    """
    score = brier(probabilities, labels)
    error = calibration_error(probabilities, labels, index, horizon, draws=draws, seed=seed)
    return _plain(
        {
            "accuracy": accuracy(probabilities, labels),
            "balanced_accuracy": balanced_accuracy(probabilities, labels),
            "brier": score.score,
            "brier_reliability": score.reliability,
            "brier_resolution": score.generalised_resolution,
            "brier_uncertainty": score.uncertainty,
            "brier_skill": score.skill,
            "classwise_ece": error.classwise,
            "classwise_ece_chance": error.classwise_chance,
            "classwise_ece_chance_high": error.classwise_chance_high,
            "top_label_ece": error.top_label,
            "top_label_ece_chance": error.top_label_chance,
            "top_label_ece_chance_high": error.top_label_chance_high,
        }
    )


def return_figures(
    probabilities: pd.DataFrame,
    forward_return: pd.Series,
    trade_return: pd.Series,
    horizon: int,
    cost_bps: float,
    trials: int,
    sessions: pd.DatetimeIndex | None = None,
) -> dict[str, Any]:
    """What following the signal p_up - p_down would have earned.

    information_coefficient with its error and whether it is across symbols or over time; sharpe, annual and
    net of costs, with its error and its days; probabilistic_sharpe, that the true one exceeds 0, and
    deflated_sharpe, that it does although it may be the best of `trials`.

    Args:
        probabilities: index (symbol, date), columns p_down, p_flat, p_up.
        forward_return: same index; over the horizon, NaN where not known.
        trade_return: same index; open[t+2] / open[t+1] - 1, NaN where not known.
        trials: everything that was tried on the way to these probabilities.
        sessions: every session of the span, where the rows may lack some between them.
    """
    view = probabilities["p_up"] - probabilities["p_down"]
    skill = information_coefficient(view, forward_return, horizon)
    daily = signal_returns(probabilities, trade_return, horizon, cost_bps, sessions)
    sharpe = sharpe_estimate(daily, lags=2 * horizon - 1)
    return _plain(
        {
            "information_coefficient": skill.estimate.mean,
            "information_coefficient_error": skill.estimate.standard_error,
            "information_coefficient_across_symbols": skill.across_symbols,
            "sharpe": sharpe.annual,
            "sharpe_error": sharpe.annual_error,
            "sharpe_days": sharpe.days,
            "probabilistic_sharpe": probabilistic_sharpe(sharpe.ratio, sharpe.standard_error),
            "deflated_sharpe": deflated_sharpe(sharpe, trials),
            "trials": trials,
        }
    )


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    undefined = {name for name, value in figures.items() if isinstance(value, float) and not np.isfinite(value)}
    return {name: None if name in undefined else value for name, value in figures.items()}
