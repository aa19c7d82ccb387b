import itertools
from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.ml import metrics
from signals_core.ml.target import make_target
from signals_core.settings import MLSettings

DATES = sessions_between("XNYS", date(2021, 1, 1), date(2021, 2, 1)).rename("date")
CERTAIN_UP, CERTAIN_DOWN, NO_VIEW = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def one_symbol(values, dates=DATES, symbol="AAA"):
    index = pd.MultiIndex.from_product([[symbol], dates], names=["symbol", "date"])
    return pd.Series(np.asarray(values, dtype="float64"), index=index)


def views_at(positions: dict[int, tuple[float, float, float]], dates=DATES) -> pd.DataFrame:
    table = np.array([positions.get(i, NO_VIEW) for i in range(len(dates))])
    index = one_symbol(np.zeros(len(dates)), dates).index
    return pd.DataFrame(table, index=index, columns=["p_down", "p_flat", "p_up"])


def test_log_loss_is_minus_the_log_of_the_probability_of_what_happened():
    losses = metrics.log_loss_rows(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]), np.array([2, 1]))
    assert losses == pytest.approx([0.6931471805599453, 1.6094379124341003])


def test_log_loss_equals_scikit_learns_on_random_forecasts():
    from sklearn.metrics import log_loss

    random = np.random.default_rng(0)
    forecasts, labels = random.dirichlet([1, 1, 1], 500), random.integers(0, 3, 500)
    assert metrics.log_loss_rows(forecasts, labels).mean() == pytest.approx(log_loss(labels, forecasts), rel=1e-9)


def test_one_forecast_serves_every_row():
    losses = metrics.log_loss_rows(np.array([0.25, 0.25, 0.5]), np.array([0, 2, 1]))
    assert losses == pytest.approx(-np.log([0.25, 0.5, 0.25]))


def test_a_forecast_of_zero_for_what_happened_costs_a_finite_27_63_nats():
    assert metrics.log_loss_rows(np.array([[0.0, 0.5, 0.5]]), np.array([0])) == pytest.approx([27.6310211])


def test_newey_west_error_equals_the_double_sum_over_autocovariances():
    random = np.random.default_rng(1)
    daily = np.convolve(random.normal(size=64), np.ones(5), mode="valid")
    index = pd.date_range("2021-01-01", periods=60, name="date")
    estimate = metrics.newey_west_mean(pd.Series(daily, index=index), horizon=5)

    mean, lags, total = daily.mean(), 9, 0.0
    for i in range(60):
        for j in range(60):
            if abs(i - j) <= lags:
                total += (1 - abs(i - j) / (lags + 1)) * (daily[i] - mean) * (daily[j] - mean)
    assert estimate.standard_error == pytest.approx(np.sqrt(total) / 60, rel=1e-12)
    assert (estimate.mean, estimate.dates) == (pytest.approx(mean), 60)


def test_newey_west_error_equals_statsmodels_hac():
    import statsmodels.api as sm

    daily = np.convolve(np.random.default_rng(2).normal(size=304), np.ones(5), mode="valid")
    index = pd.date_range("2021-01-01", periods=300, name="date")
    fitted = sm.OLS(daily, np.ones(300)).fit(cov_type="HAC", cov_kwds={"maxlags": 9, "use_correction": False})
    ours = metrics.newey_west_mean(pd.Series(daily, index=index), horizon=5)
    assert ours.standard_error == pytest.approx(fitted.bse[0], rel=1e-9)


def test_two_equal_symbols_do_not_count_as_twice_the_evidence():
    values = np.random.default_rng(3).normal(size=len(DATES))
    single = metrics.newey_west_mean(one_symbol(values), 5)
    double = metrics.newey_west_mean(pd.concat([one_symbol(values), one_symbol(values, symbol="BBB")]), 5)
    assert double == single


def test_a_constant_gain_of_zero_has_z_zero_and_a_constant_loss_minus_infinity():
    dates = pd.date_range("2021-01-01", periods=30, name="date")
    assert metrics.newey_west_mean(pd.Series(0.0, index=dates), 5).z == 0.0
    assert metrics.newey_west_mean(pd.Series(-0.5, index=dates), 5).z == -np.inf


def test_one_date_has_no_standard_error():
    estimate = metrics.newey_west_mean(one_symbol([0.25], DATES[:1]), 5)
    assert (estimate.mean, estimate.dates) == (0.25, 1)
    assert np.isnan(estimate.standard_error)


def overnight_jump() -> pd.Series:
    """Trade returns of a price that is 100 until the close of DATES[9] and 110 from the next open on."""
    price = np.where(np.arange(len(DATES)) <= 9, 100.0, 110.0)
    bars = pd.DataFrame({"open": price, "close": price}, index=DATES)
    return one_symbol(make_target(bars, MLSettings())["trade_return"])


@pytest.mark.parametrize(
    ("known_at", "expected"),
    [(7, 0.0), (8, 0.10), (9, 0.0), (10, 0.0)],
    ids=["bought and sold before", "bought at the open before", "known at the close before: too late", "after"],
)
def test_only_a_view_known_before_the_open_before_the_jump_earns_it(known_at, expected):
    earned = metrics.signal_returns(views_at({known_at: CERTAIN_UP}), overnight_jump(), horizon=1, cost_bps=0)
    assert earned.sum() == pytest.approx(expected, abs=1e-12)


def test_a_view_is_held_for_the_horizon_by_one_tranche_of_the_book():
    trade = one_symbol(np.full(len(DATES), 0.01))
    earned = metrics.signal_returns(views_at({4: CERTAIN_UP}), trade, horizon=5, cost_bps=0)
    expected = np.zeros(len(DATES))
    expected[4:9] = 0.01 / 5
    assert earned.to_numpy() == pytest.approx(expected)


def test_a_short_view_earns_minus_the_return():
    trade = one_symbol(np.full(len(DATES), -0.02))
    earned = metrics.signal_returns(views_at({3: CERTAIN_DOWN}), trade, horizon=1, cost_bps=0)
    assert earned[DATES[3]] == pytest.approx(0.02)


def test_going_in_and_out_of_one_unit_costs_twice_the_cost():
    trade = one_symbol(np.zeros(len(DATES)))
    earned = metrics.signal_returns(views_at({4: CERTAIN_UP}), trade, horizon=1, cost_bps=10)
    assert earned.sum() == pytest.approx(-0.002)
    assert (earned[DATES[4]], earned[DATES[5]]) == (pytest.approx(-0.001), pytest.approx(-0.001))


def test_the_first_position_pays_to_be_opened():
    trade = one_symbol(np.zeros(len(DATES)))
    earned = metrics.signal_returns(views_at({0: CERTAIN_UP}), trade, horizon=1, cost_bps=10)
    assert earned[DATES[0]] == pytest.approx(-0.001)


def test_what_is_still_held_at_the_end_is_sold_at_a_cost():
    trade = one_symbol(np.full(len(DATES), 0.01))
    last = len(DATES) - 1
    earned = metrics.signal_returns(views_at({last: CERTAIN_UP}), trade, horizon=5, cost_bps=10)
    # A fifth of the book: bought, held for the one day that is known, sold.
    assert earned.to_numpy() == pytest.approx([0.0] * last + [0.01 / 5 - 2 * 0.001 / 5])


def test_every_position_is_paid_for_twice_wherever_the_record_ends():
    """One unit of turnover in, one out: of a view a day, held for one session."""
    dates = pd.bdate_range("2020-01-01", periods=40, name="date")
    for end in range(1, 40):
        views = views_at({end - 1: CERTAIN_UP, 0: CERTAIN_UP}, dates[:end])
        earned = metrics.signal_returns(views, one_symbol(np.zeros(end), dates[:end]), horizon=1, cost_bps=10)
        trips = 1 if end == 1 else 2
        held_through = end == 2  # from one view into the next: nothing is traded between them
        assert earned.sum() == pytest.approx(-0.001 * 2 * (1 if held_through else trips))


def test_a_symbol_that_is_delisted_is_sold_on_its_last_day_and_the_others_go_on():
    trade = one_symbol(np.full(len(DATES), 0.01))
    gone = one_symbol(np.full(10, 0.01), DATES[:10], "GONE")
    flat, held = views_at({}), views_at({8: CERTAIN_UP}, DATES[:10])
    held.index = gone.index
    earned = metrics.signal_returns(pd.concat([flat, held]), pd.concat([trade, gone]), horizon=5, cost_bps=10)
    expected = np.zeros(len(DATES))
    expected[8] = (0.01 / 5 - 0.001 / 5) / 2
    expected[9] = (0.01 / 5 - 0.001 / 5) / 2
    assert earned.to_numpy() == pytest.approx(expected)


def test_a_tranche_ends_on_its_session_though_the_rows_pause_in_between():
    """A view of session 4 is held for five; rows of 6 to 11 are missing, and a view of 12 is one of its own."""
    kept = [i for i in range(len(DATES)) if not 6 <= i < 12]
    views, trade = views_at({4: CERTAIN_UP, 12: CERTAIN_DOWN}), one_symbol(np.full(len(DATES), 0.01))
    earned = metrics.signal_returns(views.iloc[kept], trade.iloc[kept], 5, cost_bps=10, sessions=DATES)
    expected = pd.Series(0.0, index=DATES)
    expected.iloc[4:6] = 0.01 / 5
    expected.iloc[12:17] = -0.01 / 5
    expected.iloc[[4, 5, 12, 17]] -= 0.001 / 5
    assert earned.to_numpy() == pytest.approx(expected.iloc[kept].to_numpy())
    # Without the sessions the old view would be held on through three days of the new one.
    careless = metrics.signal_returns(views.iloc[kept], trade.iloc[kept], 5, cost_bps=0)
    assert careless[DATES[13]] == pytest.approx(0.0)


def random_following(cost_bps: float = 0.0, delay: int = 0) -> pd.Series:
    dates = pd.bdate_range("2020-01-01", periods=500, name="date")
    random = np.random.default_rng(4)
    returns = random.normal(0, 0.01, 500)
    up = 0.5 + 0.4 * np.sign(returns)
    views = pd.DataFrame({"p_down": 1 - up, "p_flat": 0.0, "p_up": up}).shift(delay).fillna(1 / 3)
    index = pd.MultiIndex.from_product([["AAA"], dates], names=["symbol", "date"])
    return metrics.signal_returns(views.set_axis(index), one_symbol(returns, dates), 1, cost_bps)


def test_delaying_foresight_by_one_bar_takes_the_sharpe_ratio_away():
    on_time, late = metrics.sharpe_ratio(random_following()), metrics.sharpe_ratio(random_following(delay=1))
    assert on_time > 15
    assert abs(late) < 2


def test_a_higher_cost_never_raises_the_return_of_any_day():
    runs = [random_following(cost_bps=cost) for cost in (0, 2, 5, 20)]
    for cheaper, dearer in itertools.pairwise(runs):
        assert (dearer <= cheaper).all()
        assert dearer.sum() < cheaper.sum()


def test_days_whose_return_is_not_known_yet_are_left_out():
    trade = one_symbol([*np.full(len(DATES) - 2, 0.01), np.nan, np.nan])
    earned = metrics.signal_returns(views_at({}), trade, horizon=1, cost_bps=5)
    assert earned.index[-1] == pd.Timestamp("2021-01-27")
    assert len(earned) == 17


def test_sharpe_ratio_is_annualised_by_the_root_of_252():
    assert metrics.sharpe_ratio(pd.Series([0.01, 0.03])) == pytest.approx(0.02 / 0.0141421356 * 15.8745079, rel=1e-6)
    assert metrics.sharpe_ratio(pd.Series([0.0, 0.0, 0.0])) == 0.0
    assert np.isnan(metrics.sharpe_ratio(pd.Series([0.01])))


def test_accuracy_counts_the_likeliest_class():
    table = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.6, 0.2], [0.4, 0.3, 0.3]])
    assert metrics.accuracy(table, np.array([0, 2, 1, 2])) == 0.75


def test_the_parts_of_the_chain_rule_add_up_and_direction_costs_nothing_where_it_stayed_flat():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    labels = np.array([1, 2, 0])
    whether, which = metrics.split_log_loss_rows(probabilities, labels)
    np.testing.assert_allclose(whether, -np.log([0.5, 0.5, 0.9]))
    np.testing.assert_allclose(which, [0, -np.log(0.3 / 0.5), -np.log(0.6 / 0.9)], atol=1e-12)
    np.testing.assert_allclose(whether + which, metrics.log_loss_rows(probabilities, labels))


def test_balanced_accuracy_equals_scikit_learns():
    from sklearn.metrics import balanced_accuracy_score

    random = np.random.default_rng(6)
    table, labels = random.dirichlet([1, 2, 1], 400), random.choice(3, 400, p=[0.1, 0.7, 0.2])
    expected = balanced_accuracy_score(labels, table.argmax(axis=1))
    assert metrics.balanced_accuracy(table, labels) == pytest.approx(expected, rel=1e-12)


def test_always_flat_has_a_balanced_accuracy_of_a_third_however_frequent_flat_is():
    labels = np.array([1] * 80 + [0] * 15 + [2] * 5)
    assert metrics.balanced_accuracy(np.tile([0.2, 0.6, 0.2], (100, 1)), labels) == pytest.approx(1 / 3)


def random_forecasts(seed: int, rows: int = 700) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.dirichlet([2, 3, 2], rows), random.integers(0, 3, rows)


def test_brier_score_equals_scikit_learns_of_each_class_summed():
    from sklearn.metrics import brier_score_loss

    table, labels = random_forecasts(7)
    expected = sum(brier_score_loss(labels == number, table[:, number]) for number in range(3))
    assert metrics.brier(table, labels).score == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("seed", "rows", "bins"), [(8, 700, 8), (9, 50, 7), (10, 5, 8), (11, 1, 8)])
def test_the_parts_of_the_brier_score_add_up_exactly(seed, rows, bins):
    score = metrics.brier(*random_forecasts(seed, rows), bins=bins)
    whole = score.reliability - score.resolution + score.uncertainty + score.within_variance - score.within_covariance
    assert whole == pytest.approx(score.score, abs=1e-14)
    assert score.reliability - score.generalised_resolution + score.uncertainty == pytest.approx(score.score, abs=1e-14)
    assert min(score.reliability, score.resolution, score.uncertainty, score.within_variance) >= 0


def test_forecasts_of_a_few_values_need_no_terms_within_groups_and_give_murphys_numbers_by_hand():
    # Ten rows say (.2, .3, .5) and two of them are DOWN, four FLAT, four UP; ten say (.6, .2, .2): 6, 4, 0.
    table = np.repeat([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], 10, axis=0)
    labels = np.array([0] * 2 + [1] * 4 + [2] * 4 + [0] * 6 + [1] * 4)
    score = metrics.brier(table, labels, bins=2)
    assert score.reliability == pytest.approx((0.1**2 + 0.1**2) / 2 + (0.2**2 + 0.2**2) / 2)
    assert score.resolution == pytest.approx(0.2**2 + 0.0 + 0.2**2)
    assert score.uncertainty == pytest.approx(0.4 * 0.6 + 0.4 * 0.6 + 0.2 * 0.8)
    assert (score.within_variance, score.within_covariance) == (pytest.approx(0), pytest.approx(0))


def test_the_classes_own_frequencies_have_no_skill_and_certainty_has_all():
    labels = np.array([0, 1, 1, 2] * 25)
    assert metrics.brier(np.tile([0.25, 0.5, 0.25], (100, 1)), labels).skill == pytest.approx(0)
    perfect = metrics.brier(np.eye(3)[labels], labels)
    assert (perfect.score, perfect.skill) == (0, 1)


def views_and_returns(skill: float, dates: int, symbols: int, seed: int) -> tuple[pd.Series, pd.Series]:
    random = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [[f"S{i}" for i in range(symbols)], pd.bdate_range("2020-01-01", periods=dates)], names=["symbol", "date"]
    )
    view, noise = random.normal(size=(2, len(index)))
    return pd.Series(view, index), pd.Series(skill * view + np.sqrt(1 - skill**2) * noise, index)


def test_information_coefficient_is_the_mean_of_scipys_daily_rank_correlations():
    from scipy.stats import spearmanr

    view, returns = views_and_returns(0.3, 40, 7, seed=12)
    view, returns = view.round(1), returns.round(1)  # with ties
    view[::11], returns[::13] = np.nan, np.nan
    known = view.notna() & returns.notna()
    daily = [
        spearmanr(rows["view"], rows["return"]).statistic
        for _, rows in pd.DataFrame({"view": view, "return": returns})[known].groupby(level="date")
    ]
    found = metrics.information_coefficient(view, returns, horizon=1)
    assert found.across_symbols
    assert found.estimate.dates == 40
    assert found.estimate.mean == pytest.approx(np.mean(daily), rel=1e-12)


@pytest.mark.parametrize("skill", [0.0, 0.2])
def test_a_planted_information_coefficient_is_found_within_its_error(skill):
    # Spearman's of a normal correlation r is 6 / pi * asin(r / 2).
    for seed in range(5):
        found = metrics.information_coefficient(*views_and_returns(skill, 400, 30, seed), horizon=1).estimate
        assert abs(found.mean - 6 / np.pi * np.arcsin(skill / 2)) < 4 * found.standard_error
        assert found.standard_error == pytest.approx(1 / np.sqrt(29 * 400), rel=0.2)


def test_of_a_single_symbol_the_rank_correlation_is_over_time():
    from scipy.stats import spearmanr

    view, returns = views_and_returns(0.4, 300, 1, seed=13)
    found = metrics.information_coefficient(view, returns, horizon=1)
    assert not found.across_symbols
    assert found.estimate.mean == pytest.approx(spearmanr(view, returns).statistic, rel=1e-9)
    assert found.estimate.standard_error == pytest.approx(1 / np.sqrt(300), rel=0.2)


def test_equal_views_show_no_skill():
    view, returns = views_and_returns(0.4, 30, 5, seed=14)
    assert metrics.information_coefficient(view * 0, returns, horizon=1).estimate.mean == 0
    one = views_and_returns(0.4, 30, 1, seed=14)
    assert metrics.information_coefficient(one[0] * 0, one[1], horizon=1).estimate.mean == 0
    nothing = metrics.information_coefficient(view, returns * np.nan, horizon=1).estimate
    assert nothing.dates == 0
    assert np.isnan(nothing.mean)


@pytest.mark.parametrize("dates", [60, 120])
def test_errors_of_short_series_are_widened_to_what_they_deserve(dates: int) -> None:
    random, horizon, draws = np.random.default_rng(0), 5, 1_500
    index = pd.MultiIndex.from_product([["AAA"], pd.bdate_range("2021-01-04", periods=dates)], names=["symbol", "date"])
    overlapping = [np.convolve(random.normal(size=dates + 4), np.ones(horizon), "valid") for _ in range(draws)]
    z = np.abs([metrics.newey_west_mean(pd.Series(values, index=index), horizon).z for values in overlapping])
    assert (z > 1.96).mean() > 0.1
    assert (z > 1.96 * metrics.overlap_widening(dates, horizon)).mean() < 0.1
    assert metrics.overlap_widening(100_000, horizon) == pytest.approx(1, abs=2e-4)
