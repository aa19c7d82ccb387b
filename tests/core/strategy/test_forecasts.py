"""Views against what followed: known answers, and the same by loops."""

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError
from signals_core.market_data.prices import adjust
from signals_core.strategy.forecasts import forward_returns, hit_rate_by_confidence, quantile_returns
from signals_core.strategy.panel import PricePanel
from tests.core.strategy.markets import eventful_bars, sessions


def table(values: np.ndarray, name: str) -> pd.Series:
    dates, symbols = sessions(len(values)), [f"S{i:02d}" for i in range(values.shape[1])]
    index = pd.MultiIndex.from_product([symbols, dates], names=["symbol", "date"])
    return pd.Series(values.T.ravel(), index, name=name)


def test_forward_returns_are_those_of_adjusted_opens():
    bars, actions, _ = eventful_bars(3, 80, 4)
    bars = {s: b.assign(open=b["open"].fillna(b["close"])) for s, b in bars.items()}
    panel = PricePanel.from_bars(bars, actions, sessions=sessions(80))
    found = forward_returns(panel, 5)
    for symbol, own in bars.items():
        adjusted = adjust(own.assign(high=own["open"], low=own["open"], volume=1.0), actions[symbol])
        opens = adjusted["open"].reindex(panel.dates)
        expected = opens.shift(-6) / opens.shift(-1) - 1
        np.testing.assert_allclose(found[symbol], expected, rtol=1e-9)


def test_hit_rates_rise_with_a_confidence_that_is_true():
    random = np.random.default_rng(0)
    strength = random.uniform(0.5, 0.9, (400, 10))
    sign = random.choice([-1, 1], strength.shape)
    right = random.random(strength.shape) < strength
    earned = table(np.where(right, 1, -1) * sign * 0.01, "forward_return")
    signals = pd.DataFrame({"sign": table(sign, "s"), "strength": table(strength, "p")}).reset_index()
    found = hit_rate_by_confidence(signals, earned, horizon=1, groups=4)
    assert found["signals"].tolist() == [1000] * 4
    assert found["hit_rate"].is_monotonic_increasing
    assert (np.abs(found["hit_rate"] - (found["low"] + found["high"]) / 2) < 3 * found["error"]).all()
    assert found["error"].to_numpy() == pytest.approx(
        np.sqrt(found["hit_rate"] * (1 - found["hit_rate"]) / 1000), rel=0.2
    )
    assert found["mean_return"].to_numpy() == pytest.approx(0.01 * (2 * found["hit_rate"] - 1))
    by_edges = hit_rate_by_confidence(signals, earned, 1, edges=(0.6, 0.7))
    assert by_edges["low"].tolist()[1:] > [0.6, 0.7]
    assert by_edges["high"].iloc[0] < 0.6
    assert by_edges["signals"].sum() == 4000


def test_signals_without_a_return_are_left_out_and_none_at_all_give_an_empty_table():
    earned = table(np.array([[0.1, np.nan], [0.0, -0.1]]), "forward_return")
    signals = pd.DataFrame({"sign": 1, "strength": 0.6}, earned.index).reset_index()
    found = hit_rate_by_confidence(signals, earned, 1, groups=1)
    assert (found["signals"].item(), found["dates"].item()) == (3, 2)
    assert found["hit_rate"].item() == pytest.approx((1.0 + 0.0) / 2)  # by date: 1 of 1, 0 of 2
    assert len(hit_rate_by_confidence(signals.iloc[:0], earned, 1)) == 0


def test_quantiles_are_those_of_a_loop_over_dates():
    random = np.random.default_rng(1)
    view, earned = table(random.normal(size=(60, 10)), "view"), table(random.normal(size=(60, 10)), "earned")
    view[random.random(600) < 0.1] = np.nan
    found = quantile_returns(view, earned, horizon=1, quantiles=3)
    means = []
    for day in view.index.get_level_values("date").unique():
        v, e = view.xs(day, level="date").dropna(), earned.xs(day, level="date")
        order = v.sort_values().index
        count = len(order)
        own = [[], [], []]
        for rank, symbol in enumerate(order, start=1):
            own[int(np.ceil((rank - 0.5) / count * 3)) - 1].append(e[symbol])
        means.append([np.mean(group) for group in own])
    assert found["mean_return"].tolist()[:3] == pytest.approx(np.mean(means, axis=0).tolist())
    assert found.loc["spread", "mean_return"] == pytest.approx(np.mean([m[2] - m[0] for m in means]))
    assert (found["dates"] == 60).all()


def test_a_view_that_is_the_return_itself_sorts_it_and_noise_does_not():
    random = np.random.default_rng(2)
    earned = table(random.normal(size=(300, 20)), "earned")
    known = quantile_returns(earned, earned, 1)
    assert known["mean_return"].iloc[:5].is_monotonic_increasing
    assert known.loc["spread", "mean_return"] > 20 * known.loc["spread", "error"]
    noise = quantile_returns(table(random.normal(size=(300, 20)), "view"), earned, 1)
    assert abs(noise.loc["spread", "mean_return"]) < 3 * noise.loc["spread", "error"]


def test_too_few_symbols_for_the_quantiles_are_refused():
    view = table(np.ones((5, 3)), "view")
    with pytest.raises(DataError, match="no date has 5 symbols"):
        quantile_returns(view, view, 1)
    with pytest.raises(DataError, match="two or more"):
        quantile_returns(view, view, 1, quantiles=1)
