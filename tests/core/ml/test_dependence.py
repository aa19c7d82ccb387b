import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from signals_core.ml import dependence
from tests.core.ml.forecasts import true_forecasts


def test_intraclass_correlation_is_the_mean_product_over_all_pairs_of_a_date():
    random = np.random.default_rng(0)
    dates = np.repeat(np.arange(12), random.integers(1, 6, 12))
    values = random.normal(size=len(dates)) + random.normal(size=12)[dates]
    centred = values - values.mean()
    products = [
        centred[i] * centred[j] for i in range(len(dates)) for j in range(len(dates)) if i != j and dates[i] == dates[j]
    ]
    expected = np.mean(products) / np.mean(centred**2)
    assert dependence.intraclass_correlation(values, dates) == pytest.approx(expected, rel=1e-12)


def test_rows_of_one_date_that_are_all_alike_correlate_by_one_and_single_rows_not_at_all():
    assert dependence.intraclass_correlation(np.repeat([1.0, 2.0, 5.0], 4), np.repeat([0, 1, 2], 4)) == pytest.approx(1)
    assert dependence.intraclass_correlation(np.arange(5.0), np.arange(5)) == 0
    assert dependence.intraclass_correlation(np.ones(6), np.repeat([0, 1], 3)) == 0


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7])
def test_the_correlation_of_the_returns_behind_labels_is_found(correlation):
    found = [
        dependence.latent_correlation(made.labels, made.dates)
        for made in (true_forecasts(800, 20, seed, skill=0.0, correlation=correlation) for seed in range(4))
    ]
    assert np.mean(found) == pytest.approx(correlation, abs=0.04)


def test_labels_of_one_class_correlate_by_nothing_that_could_be_known():
    assert dependence.latent_correlation(np.ones(20, dtype=int), np.repeat(np.arange(5), 4)) == 0


def test_one_symbol_has_one_outcome_a_horizon_and_equal_symbols_add_none():
    labels = np.random.default_rng(1).integers(0, 3, 500)
    assert dependence.rows_per_outcome(labels, np.arange(500), 5) == 5
    doubled = dependence.rows_per_outcome(np.repeat(labels, 4), np.repeat(np.arange(500), 4), 5)
    assert doubled == pytest.approx(20)


def test_rows_per_outcome_say_how_much_the_shares_of_classes_scatter():
    """The variance of a share over many markets is p (1 - p) / (rows / rows_per_outcome)."""
    made = [true_forecasts(300, 20, seed, skill=0.0) for seed in range(150)]
    shares = np.array([(market.labels == 2).mean() for market in made])
    claimed = np.mean([dependence.rows_per_outcome(m.labels, m.dates, 5) for m in made])
    implied = 300 * 20 * shares.var() / (shares.mean() * (1 - shares.mean()))
    assert claimed == pytest.approx(implied, rel=0.3)


def test_independent_rows_are_squared_rows_over_the_sum_of_all_correlations():
    random = np.random.default_rng(2)
    chosen = random.choice(40 * 5, 90, replace=False)
    date_of, symbol_of = chosen // 5, chosen % 5
    total = 0.0
    for i in range(90):
        for j in range(90):
            overlap = max(1 - abs(date_of[i] - date_of[j]) / 5, 0)
            total += overlap * (1 if symbol_of[i] == symbol_of[j] else 0.3)
    found = dependence.independent_rows(date_of, symbol_of, horizon=5, correlation=0.3)
    assert found == pytest.approx(90**2 / total, rel=1e-6)


def panel(dates: int, symbols: int) -> pd.MultiIndex:
    days = pd.bdate_range("2020-01-01", periods=dates)
    return pd.MultiIndex.from_product([[f"S{i}" for i in range(symbols)], days], names=["symbol", "date"])


def test_drawn_labels_follow_each_rows_own_forecast():
    index = panel(6, 3)
    table = np.random.default_rng(3).dirichlet([2, 3, 2], len(index))
    drawn = np.array(list(dependence.draw_labels(table, index, 5, 0.4, draws=20_000, seed=0)))
    for number in range(3):
        assert (drawn == number).mean(axis=0) == pytest.approx(table[:, number], abs=0.015)


def test_drawn_labels_overlap_and_correlate_as_returns_do():
    index = panel(300, 8)
    table = np.tile([0.5, 0.0, 0.5], (len(index), 1))
    up = np.array([drawn == 2 for drawn in dependence.draw_labels(table, index, 5, 0.4, draws=60, seed=1)])
    grid = np.where(up.reshape(60, 8, 300), 1.0, -1.0)

    def sign_correlation(rho: float) -> float:
        return 2 / np.pi * np.arcsin(rho)  # of the signs of two normal variables

    for lag in range(1, 7):
        expected = sign_correlation(max(1 - lag / 5, 0))
        assert (grid[:, :, lag:] * grid[:, :, :-lag]).mean() == pytest.approx(expected, abs=0.03)
    assert (grid[:, 0] * grid[:, 1]).mean() == pytest.approx(sign_correlation(0.4), abs=0.04)


def test_a_forecast_of_zero_or_one_is_kept():
    index = panel(50, 2)
    table = np.tile([0.0, 1.0, 0.0], (len(index), 1))
    assert all((drawn == 1).all() for drawn in dependence.draw_labels(table, index, 5, 0.2, draws=5, seed=0))


def test_the_same_seed_draws_the_same_labels():
    index = panel(20, 3)
    table = np.full((len(index), 3), 1 / 3)
    first, again, other = (
        np.array(list(dependence.draw_labels(table, index, 5, 0.2, draws=3, seed=seed))) for seed in (4, 4, 5)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_the_forecasts_of_these_tests_are_true():
    made = true_forecasts(2000, 10, seed=0, correlation=0.0)
    assert made.probabilities.mean(axis=0) == pytest.approx([0.3, 0.4, 0.3], abs=0.01)
    assert np.corrcoef(made.returns, norm.ppf(made.probabilities[:, 2]))[0, 1] == pytest.approx(0.2, abs=0.03)
