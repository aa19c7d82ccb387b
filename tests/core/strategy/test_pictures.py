"""Pictures are drawn whatever the backtest did, and the same for the same."""

import numpy as np
import pytest

from signals_core.strategy import pictures
from signals_core.strategy.forecasts import hit_rate_by_confidence, quantile_returns
from signals_core.strategy.performance import benchmark_equity, performance
from signals_core.strategy.portfolio import simulate
from tests.core.strategy.markets import eventful_panel, random_weights
from tests.core.test_plots import size_of


def every_picture(weights: np.ndarray, count: int) -> dict[str, bytes]:
    panel = eventful_panel(3, count, seed=21)
    backtest = simulate(panel, weights, tranches=5)
    benchmark = benchmark_equity(backtest, panel.frame(panel.close)["S01"].bfill())
    return {
        "equity": pictures.equity_curve(backtest, performance(backtest, 7), "title", benchmark),
        "alone": pictures.equity_curve(backtest, performance(backtest, 7), "title"),
        "exposure": pictures.exposure_picture(backtest, "title"),
        "months": pictures.monthly_heat_map(backtest, "title"),
    }


@pytest.mark.parametrize("count", [2, 30, 400])
def test_they_are_pictures_and_the_same_for_the_same(count):
    weights = random_weights(eventful_panel(3, max(count, 8), seed=21), 1)[:count]
    if count < 8:
        weights = np.zeros((8, 3))
    drawn = every_picture(weights, max(count, 8))
    for name, picture in drawn.items():
        assert size_of(picture)[0] > 700, name
    assert drawn == every_picture(weights, max(count, 8))


def test_one_that_ended_in_ruin_is_drawn_too():
    panel = eventful_panel(3, 60, seed=11)
    ruined = simulate(panel, np.full(panel.close.shape, -20.0))
    assert ruined.equity.iloc[-1] <= 0
    assert size_of(pictures.equity_curve(ruined, performance(ruined), "title"))[1] > 300


def test_forecasts_are_drawn():
    from tests.core.strategy.test_forecasts import table

    random = np.random.default_rng(0)
    view, earned = (table(random.normal(size=(40, 6)), name) for name in ("view", "earned"))
    quantiles = pictures.quantile_bars(quantile_returns(view, earned, 5, quantiles=3), "title", 5)
    signals = view.abs().rename("strength").reset_index().assign(sign=np.sign(view.to_numpy()))
    hits = pictures.confidence_bars(hit_rate_by_confidence(signals, earned, 5), "title")
    assert size_of(quantiles)[0] > 600
    assert size_of(hits)[0] > 600
