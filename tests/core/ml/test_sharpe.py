import numpy as np
import pandas as pd
import pytest

from signals_core.ml.metrics import sharpe_ratio, signal_returns
from signals_core.ml.sharpe import (
    SharpeEstimate,
    deflated_sharpe,
    expected_maximum_sharpe,
    probabilistic_sharpe,
    sharpe_error,
    sharpe_estimate,
)
from signals_core.ml.target import make_target
from signals_core.settings import MLSettings

TRUE_SHARPE = 1.59
DAILY_RISK = 0.01
DRIFT = TRUE_SHARPE / np.sqrt(252) * DAILY_RISK


def market_in_regimes(days: int, seed: int, length: int = 500) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars whose drift is +DRIFT or -DRIFT for `length` days at a time, and a forecaster who knows the regime.

    Following it earns DRIFT at DAILY_RISK, whatever the regime: its Sharpe ratio is TRUE_SHARPE.
    """
    random = np.random.default_rng(seed)
    regime = np.repeat(random.choice([-1.0, 1.0], days // length + 1), length)[:days]
    # Of the trade from the open after a day to the next open: log-returns small enough to be plain ones.
    change = DRIFT * regime + DAILY_RISK * random.normal(size=days)
    open_ = np.cumprod(np.concatenate([[1.0, 1.0], 1 + change]))[:days]
    bars = pd.DataFrame({"open": open_, "close": np.append(open_[1:], open_[-1])})
    index = pd.MultiIndex.from_product([["AAA"], range(days)], names=["symbol", "date"])
    up = (regime > 0) * 1.0
    views = pd.DataFrame({"p_down": 1 - up, "p_flat": 0.0, "p_up": up}, index=index)
    return views, make_target(bars.rename_axis("date"), MLSettings()).set_axis(index)


@pytest.mark.parametrize("seed", range(3))
def test_a_strategy_with_true_sharpe_1_59_measures_1_6_and_never_3_6(seed):
    views, target = market_in_regimes(300_000, seed)  # 1,190 years: the error of the measurement is .03
    daily = signal_returns(views, target["trade_return"], horizon=5, cost_bps=0)
    assert sharpe_ratio(daily) == pytest.approx(1.6, abs=0.1)
    assert sharpe_estimate(daily, lags=9).annual == pytest.approx(1.6, abs=0.1)
    # The trap: every day's five-day return taken for a daily one is root 5 times too good.
    trap = ((views["p_up"] - views["p_down"]) * target["forward_return"]).dropna()
    assert sharpe_ratio(trap) > 3.3


def test_of_returns_with_exactly_that_mean_and_deviation_it_measures_exactly_that():
    noise = np.random.default_rng(0).normal(size=1000)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    index = pd.MultiIndex.from_product([["AAA"], range(1000)], names=["symbol", "date"])
    up = pd.DataFrame({"p_down": 0.0, "p_flat": 0.0, "p_up": 1.0}, index=index)
    daily = signal_returns(up, pd.Series(DRIFT + DAILY_RISK * noise, index), horizon=1, cost_bps=0)
    assert sharpe_ratio(daily) == pytest.approx(TRUE_SHARPE, rel=1e-9)
    assert sharpe_estimate(daily).annual == pytest.approx(TRUE_SHARPE, rel=1e-9)


def test_costs_take_what_they_should_from_a_strategy_that_turns_over_daily():
    random = np.random.default_rng(1)
    index = pd.MultiIndex.from_product([["AAA"], range(50_000)], names=["symbol", "date"])
    side = random.choice([-1.0, 1.0], 50_000)
    up = (side > 0) * 1.0
    views = pd.DataFrame({"p_down": 1 - up, "p_flat": 0.0, "p_up": up}, index=index)
    trade = pd.Series(DRIFT * side + DAILY_RISK * random.normal(size=50_000), index)
    gross, net = (signal_returns(views, trade, horizon=1, cost_bps=cost) for cost in (0, 5))
    # From one side to the other, two units, every second day: one unit a day.
    assert (gross - net).mean() == pytest.approx(5e-4, rel=0.01)


def test_the_standard_error_is_how_the_ratio_scatters_over_ten_year_records():
    random = np.random.default_rng(2)
    found = [sharpe_estimate(DRIFT + DAILY_RISK * random.normal(size=2520)) for _ in range(400)]
    ratios = np.array([estimate.annual for estimate in found])
    assert np.mean([estimate.annual_error for estimate in found]) == pytest.approx(ratios.std(), rel=0.1)
    inside = [abs(e.annual - TRUE_SHARPE) < 1.96 * e.annual_error for e in found]
    assert 0.92 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize("seed", range(3))
def test_mertens_error_knows_skewness_and_fat_tails(seed):
    """Of a strategy that mostly earns a little and seldom loses much, with a high ratio a day."""
    random = np.random.default_rng(seed)
    returns = np.where(random.random((3000, 500)) < 0.03, -6.0, 0.45) + 0.3 * random.normal(size=(3000, 500))
    ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    skewness, kurtosis = (float((((returns - returns.mean()) / returns.std()) ** k).mean()) for k in (3, 4))
    ratio = returns.mean() / returns.std()
    assert sharpe_error(ratio, 500, skewness, kurtosis) == pytest.approx(ratios.std(), rel=0.07)
    assert sharpe_error(ratio, 500) < 0.9 * ratios.std()  # what normal returns would say


def test_serial_correlation_widens_the_error_as_lo_says():
    random = np.random.default_rng(3)
    found = []
    for _ in range(200):
        noise = random.normal(size=3000)
        for day in range(1, 3000):
            noise[day] += 0.4 * noise[day - 1]
        found.append((sharpe_estimate(noise + 0.1, lags=20), sharpe_estimate(noise + 0.1)))
    scatter = np.std([aware.ratio for aware, _ in found])
    assert np.mean([aware.standard_error for aware, _ in found]) == pytest.approx(scatter, rel=0.15)
    assert np.mean([naive.standard_error for _, naive in found]) < 0.75 * scatter


def test_without_lags_the_error_is_mertens_exactly():
    returns = np.random.default_rng(4).standard_t(4, size=700) * 0.01 + 0.001
    estimate = sharpe_estimate(returns)
    assert estimate.standard_error == pytest.approx(
        sharpe_error(estimate.ratio, 700, estimate.skewness, estimate.kurtosis), rel=1e-12
    )


@pytest.mark.parametrize(("returns", "ratio"), [([0.0] * 5, 0.0), ([0.01] * 5, 0.0), ([0.01], np.nan), ([], np.nan)])
def test_constant_or_too_few_returns_have_no_error(returns, ratio):
    estimate = sharpe_estimate(np.array(returns))
    assert estimate.ratio == pytest.approx(ratio, nan_ok=True)
    assert np.isnan(estimate.standard_error)
    assert np.isnan(probabilistic_sharpe(estimate.ratio, estimate.standard_error))
    assert np.isnan(deflated_sharpe(estimate, 10))


@pytest.mark.parametrize(("skewness", "kurtosis", "expected"), [(0.0, 3.0, 0.982), (-2.448, 10.164, 0.913)])
def test_the_hedge_fund_of_bailey_and_lopez_de_prado_2012(skewness, kurtosis, expected):
    """24 months with a monthly ratio of .458, which is 1.59 a year; PSR(0) as printed."""
    error = sharpe_error(0.458, 24, skewness, kurtosis)
    assert probabilistic_sharpe(0.458, error) == pytest.approx(expected, abs=5e-4)


BEST = 2.5 / np.sqrt(250)
"""Bailey and Lopez de Prado 2014: an annual ratio of 2.5 over 1,250 days; trials' annual ratios vary by 1/2."""


def test_the_expected_maximum_of_bailey_and_lopez_de_prado_2014():
    assert expected_maximum_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)


@pytest.mark.parametrize(
    ("trials", "skewness", "kurtosis", "expected"), [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)]
)
def test_the_strategist_of_bailey_and_lopez_de_prado_2014(trials, skewness, kurtosis, expected):
    error = sharpe_error(BEST, 1250, skewness, kurtosis)
    estimate = SharpeEstimate(BEST, error, 1250, skewness, kurtosis)
    assert deflated_sharpe(estimate, trials, variance=0.5 / 250) == pytest.approx(expected, abs=5e-5)


def test_the_expected_maximum_is_that_of_normal_draws():
    draws = np.random.default_rng(5).normal(size=(20_000, 100)).max(axis=1)
    assert expected_maximum_sharpe(100, 4.0) == pytest.approx(2 * draws.mean(), rel=0.02)
    assert expected_maximum_sharpe(1, 4.0) == 0


def test_more_trials_leave_less():
    estimate = sharpe_estimate(np.random.default_rng(6).normal(0.001, 0.01, 1000))
    left = [deflated_sharpe(estimate, trials) for trials in (1, 2, 10, 100, 4300)]
    assert left == sorted(left, reverse=True)
    assert left[0] == probabilistic_sharpe(estimate.ratio, estimate.standard_error)


def test_the_best_of_fifty_without_skill_looks_skilled_and_is_deflated():
    random = np.random.default_rng(7)
    plain, deflated = [], []
    for _ in range(200):
        returns = 0.01 * random.normal(size=(500, 50))
        best = sharpe_estimate(returns[:, returns.mean(axis=0).argmax()])
        plain.append(probabilistic_sharpe(best.ratio, best.standard_error) > 0.95)
        deflated.append(deflated_sharpe(best, 50) > 0.95)
    assert np.mean(plain) > 0.85
    assert np.mean(deflated) <= 0.05


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_the_own_error_deflates_at_least_as_much_as_the_measured_scatter_of_trials_that_are_alike(alike):
    random = np.random.default_rng(8)
    assumed, measured, scatter = [], [], []
    for _ in range(100):
        common = random.normal(size=(500, 1))
        returns = 0.01 * (np.sqrt(alike) * common + np.sqrt(1 - alike) * random.normal(size=(500, 50)))
        ratios = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
        best = sharpe_estimate(returns[:, ratios.argmax()])
        scatter.append(ratios.var(ddof=1) / best.standard_error**2)
        assumed.append(deflated_sharpe(best, 50))
        measured.append(deflated_sharpe(best, 50, ratios.var(ddof=1)))
    assert np.mean(scatter) == pytest.approx(1 - alike, abs=0.05)
    assert np.mean(assumed) <= np.mean(measured) + 0.01
    assert np.mean(np.array(assumed) > 0.95) <= 0.05
