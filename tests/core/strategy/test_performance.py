"""Figures of a backtest against loops over days, and against empyrical where it is installed."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError
from signals_core.execution.costs import CostModel
from signals_core.strategy import performance
from signals_core.strategy.backtest import Backtest
from signals_core.strategy.portfolio import Rules, simulate
from tests.core.strategy.markets import eventful_panel, random_weights


@pytest.fixture(scope="module")
def backtest() -> Backtest:
    panel = eventful_panel(6, 700, seed=21)
    rules = Rules(CostModel(1, 4, 50), cash_bps_per_year=100)
    return simulate(panel, random_weights(panel, 22), rules, tranches=5)


def test_figures_are_those_of_a_loop_over_days(backtest):
    found = performance.performance(backtest)
    equity = [backtest.capital, *backtest.equity]
    returns = [b / a - 1 for a, b in pairwise(equity)][1:]
    assert found.sharpe == pytest.approx(np.mean(returns) / np.std(returns, ddof=1) * 252**0.5)
    assert found.volatility == pytest.approx(np.std(returns, ddof=1) * 252**0.5)
    assert found.total_return == pytest.approx(equity[-1] / 100_000 - 1)
    assert (1 + found.cagr) ** (699 / 252) == pytest.approx(equity[-1] / 100_000)
    high, deepest, run, longest, since = equity[0], 0.0, 0, 0, None
    for day, value in zip(backtest.dates, equity[1:], strict=True):
        if value >= high:
            high, run, peak = value, 0, day
        else:
            run += 1
        longest = max(longest, run)
        if value / high - 1 < deepest:
            deepest, since, until = value / high - 1, peak, day
    assert found.max_drawdown == pytest.approx(deepest)
    assert (found.drawdown_start, found.drawdown_end) == (str(since.date()), str(until.date()))
    assert found.longest_drawdown == longest
    assert found.positive_days == pytest.approx(np.mean([r > 0 for r in returns if r]))
    assert found.trades == len(backtest.trades[backtest.trades["kind"] == "order"])
    trades = backtest.trades
    own_costs = trades["commission"].sum() + trades["slippage"].sum() - backtest.ledger["borrow"].sum()
    assert found.costs == pytest.approx(own_costs)


def test_they_are_those_of_empyrical(backtest):
    empyrical = pytest.importorskip("empyrical", reason="empyrical-reloaded is not installed")
    found = performance.performance(backtest)
    returns = backtest.returns.iloc[1:]
    assert found.sharpe == pytest.approx(empyrical.sharpe_ratio(returns))
    assert found.volatility == pytest.approx(empyrical.annual_volatility(returns))
    assert found.cagr == pytest.approx(empyrical.cagr(returns))
    assert found.max_drawdown == pytest.approx(empyrical.max_drawdown(returns))
    assert found.total_return == pytest.approx(empyrical.cum_returns_final(returns))
    yearly = empyrical.aggregate_returns(backtest.returns, "yearly")
    assert performance.by_year(backtest)["return"].to_numpy() == pytest.approx(yearly.to_numpy())
    monthly = empyrical.aggregate_returns(backtest.returns, "monthly")
    assert performance.by_month(backtest).stack().dropna().to_numpy() == pytest.approx(monthly.to_numpy())


def test_the_headline_states_the_uncertainty_first(backtest):
    found = performance.performance(backtest, trials=40)
    assert found.sharpe_low < found.sharpe < found.sharpe_high
    assert found.sharpe_error == pytest.approx((252 / 700) ** 0.5, rel=0.4)
    words = found.headline()
    assert words.startswith(f"Sharpe ratio between {found.sharpe_low:.2f} and {found.sharpe_high:.2f} (95 %")
    assert "the best of 40 tried" in words
    assert "could be luck" in words
    assert found.deflated_sharpe < performance.performance(backtest, trials=1).deflated_sharpe


def test_years_make_up_the_whole(backtest):
    years = performance.by_year(backtest)
    assert (1 + years["return"]).prod() == pytest.approx(backtest.equity.iloc[-1] / backtest.capital)
    assert years["sessions"].sum() == 700
    assert years["costs"].sum() == pytest.approx(performance.performance(backtest).costs)
    assert years["turnover"].sum() == pytest.approx(backtest.turnover.sum())
    months = performance.by_month(backtest)
    assert (1 + months).prod(axis=1).to_numpy() == pytest.approx(1 + years["return"].to_numpy())


def test_symbols_make_up_the_whole(backtest):
    symbols = performance.by_symbol(backtest)
    change = backtest.equity.iloc[-1] - backtest.capital
    assert symbols["earned"].sum() + backtest.ledger["interest"].sum() == pytest.approx(change)
    assert symbols["earned"].is_monotonic_decreasing
    assert symbols.loc["S02", "trades"] == (backtest.traded[:, 2] != 0).sum()
    assert symbols["largest_weight"].max() == pytest.approx(backtest.weights.abs().to_numpy().max())


def test_what_one_symbol_earned_is_what_an_account_with_it_alone_earned():
    """Without costs and with so small weights that equity hardly moves."""
    panel = eventful_panel(4, 200, seed=5)
    weights = random_weights(panel, 6, gross=1e-6)
    earned = simulate(panel, weights).earned.sum(axis=0)
    for at in range(4):
        alone = np.zeros_like(weights)
        alone[:, at] = weights[:, at]
        assert simulate(panel, alone).equity.iloc[-1] - 100_000 == pytest.approx(earned[at], rel=1e-3, abs=1e-7)


def test_an_account_that_did_nothing_has_figures_without_an_error(recwarn):
    panel = eventful_panel(2, 30, seed=1)
    idle = simulate(panel, np.zeros((30, 2)))
    found = performance.performance(idle)
    assert (found.sharpe, found.total_return, found.max_drawdown, found.turnover, found.trades) == (0, 0, 0, 0, 0)
    assert np.isnan(found.sharpe_error)
    assert found.headline() == "30 sessions, too few or too constant for a Sharpe ratio with an error"
    assert performance.by_symbol(idle)["earned"].tolist() == [0, 0]
    with pytest.raises(DataError, match="1 sessions"):
        performance.performance(simulate(panel.between(end=panel.dates[1].date()), np.zeros((1, 2))))
    assert not recwarn.list


def test_a_benchmark_is_the_capital_held_in_it(backtest):
    closes = pd.Series([10.0, 20.0, 15.0], [backtest.dates[0], backtest.dates[3], backtest.dates[600]])
    found = performance.benchmark_equity(backtest, closes)
    assert found.iloc[[0, 2, 3, 599, 600, 699]].tolist() == [1e5, 1e5, 2e5, 2e5, 1.5e5, 1.5e5]
    with pytest.raises(DataError, match="no close at"):
        performance.benchmark_equity(backtest, closes.iloc[1:])


def test_a_ruined_account_has_lost_everything_a_year():
    panel = eventful_panel(3, 60, seed=11)
    ruined = simulate(panel, np.full(panel.close.shape, -20.0))
    assert ruined.ruined_on is not None
    assert performance.performance(ruined).cagr == -1
