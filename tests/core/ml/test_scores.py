import json

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.scores import probability_figures, return_figures
from tests.core.ml.forecasts import Forecasts, distorted, true_forecasts

HORIZON = 5


def returns_of(made: Forecasts) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Views, the returns over the horizon, and a fifth of them as what one session's holding earned."""
    frame = made.frame()[["p_down", "p_flat", "p_up"]]
    forward = pd.Series(0.02 * made.returns, made.index)
    return frame, forward, forward / HORIZON


def test_figures_are_plain_json_and_add_up():
    made = true_forecasts(300, 10, seed=0, skill=0.4)
    figures = probability_figures(made.probabilities, made.labels, made.index, HORIZON)
    figures |= return_figures(*returns_of(made), HORIZON, cost_bps=0, trials=100)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    parts = figures["brier_reliability"] - figures["brier_resolution"] + figures["brier_uncertainty"]
    assert parts == pytest.approx(figures["brier"], abs=1e-12)
    assert figures["balanced_accuracy"] > 1 / 3
    assert figures["classwise_ece"] < figures["classwise_ece_chance_high"] + 0.01
    assert figures["information_coefficient"] == pytest.approx(0.385, abs=4 * figures["information_coefficient_error"])
    assert figures["information_coefficient_across_symbols"] is True
    assert figures["sharpe"] > 3 * figures["sharpe_error"]
    assert 0.99 < figures["deflated_sharpe"] <= figures["probabilistic_sharpe"]


def test_what_cannot_be_known_is_null_and_not_a_number():
    made = true_forecasts(60, 3, seed=1)
    views, forward, trade = returns_of(made)
    figures = return_figures(views, forward * np.nan, trade * np.nan, HORIZON, cost_bps=5, trials=10)
    json.dumps(figures, allow_nan=False)
    assert figures["sharpe"] is None
    assert figures["deflated_sharpe"] is None
    assert figures["information_coefficient"] is None
    assert figures["sharpe_days"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_forecasts_without_skill_show_none(seed):
    made = true_forecasts(750, 20, seed, skill=0.0)
    noise = np.random.default_rng(seed).dirichlet([30, 40, 30], len(made.labels))
    views = pd.DataFrame(noise, made.index, ["p_down", "p_flat", "p_up"])
    trade = pd.Series(0.01 * np.random.default_rng(seed + 50).normal(size=len(views)), made.index)
    figures = return_figures(views, pd.Series(made.returns, made.index), trade, HORIZON, cost_bps=0, trials=1)
    assert abs(figures["information_coefficient"]) < 3.5 * figures["information_coefficient_error"]
    assert abs(figures["sharpe"]) < 3.5 * figures["sharpe_error"]
    assert figures["sharpe_error"] == pytest.approx(1 / np.sqrt(750 / 252), rel=0.3)
    worth = probability_figures(noise, made.labels, made.index, HORIZON, draws=10)
    assert worth["brier_skill"] < 0
    assert worth["balanced_accuracy"] == pytest.approx(1 / 3, abs=0.02)


def test_overconfidence_shows_in_reliability_and_leaves_resolution_as_it_was():
    made = true_forecasts(400, 20, seed=2)
    right, sure = (
        probability_figures(table, made.labels, made.index, HORIZON, draws=20)
        for table in (made.probabilities, distorted(made.probabilities, 3))
    )
    assert sure["brier_reliability"] > 10 * right["brier_reliability"]
    assert sure["classwise_ece"] > sure["classwise_ece_chance_high"]
    assert right["brier_uncertainty"] == sure["brier_uncertainty"]
    assert sure["brier"] > right["brier"]
