import numpy as np
import pytest

from signals_core.ml import reliability as rel
from signals_core.ml.target import CLASSES
from tests.core.ml.forecasts import distorted, true_forecasts


@pytest.mark.parametrize(
    ("share", "rows", "horizon", "low", "high"),
    # Wilson's interval of k of n, computed by hand and equal to statsmodels' proportion_confint.
    [(0.5, 100, 1, 0.403832, 0.596168), (0.0, 20, 1, 0.0, 0.161133), (0.5, 500, 5, 0.403832, 0.596168)],
)
def test_wilson_interval_knows_that_overlapping_labels_are_fewer_observations(share, rows, horizon, low, high):
    labels = np.where(np.arange(rows) < share * rows, 2, 1)
    table = np.full((rows, 3), 1 / 3)
    up = rel.reliability(table, labels, CLASSES, horizon, bins=1)[2]
    assert (up.class_name, up.rows, up.observed) == ("UP", rows, share)
    assert (up.low, up.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_reliability_bins_hold_equal_numbers_sorted_by_forecast():
    random = np.random.default_rng(5)
    table = random.dirichlet([2, 2, 2], 800)
    labels = np.array([random.choice(3, p=p) for p in table])
    bins = rel.reliability(table, labels, CLASSES, horizon=1, bins=8)
    assert len(bins) == 24
    assert {b.rows for b in bins} == {100}
    for number, name in enumerate(CLASSES):
        ours = [b for b in bins if b.class_name == name]
        slow = np.sort(table[:, number]).reshape(8, 100).mean(axis=1)
        assert [b.forecast for b in ours] == pytest.approx(slow)
    inside = sum(b.low <= b.forecast <= b.high for b in bins)
    assert inside >= 20  # 95 % of 24 for forecasts that are true


def test_classwise_ece_of_a_forecast_of_all_or_nothing_that_is_right_half_the_time_is_a_third():
    table = np.tile([1.0, 0.0, 0.0], (100, 1))
    labels = np.arange(100) % 2
    bins = rel.reliability(table, labels, CLASSES, horizon=1, bins=1)
    assert rel.classwise_ece(bins) == pytest.approx((0.5 + 0.5 + 0.0) / 3)


def test_intervals_hold_the_truth_as_often_as_they_say_for_correlated_overlapping_labels():
    held = []
    for seed in range(20):
        made = true_forecasts(500, 30, seed)
        bins = rel.reliability(made.probabilities, made.labels, CLASSES, 5, 8, made.index)
        held.append(np.mean([b.low <= b.forecast <= b.high for b in bins]))
    assert 0.93 <= np.mean(held) <= 0.995


def test_intervals_that_take_correlated_rows_for_independent_would_hold_it_far_less_often():
    """What the test above would show if dependence were ignored."""
    held = []
    for seed in range(20):
        made = true_forecasts(500, 30, seed)
        bins = rel.reliability(made.probabilities, made.labels, CLASSES, 1, 8)
        held.append(np.mean([b.low <= b.forecast <= b.high for b in bins]))
    assert np.mean(held) < 0.75


def test_ece_of_groups_made_already_and_of_rows_is_the_same():
    made = true_forecasts(120, 5, seed=1)
    bins = rel.reliability(made.probabilities, made.labels, CLASSES, 5, 8)
    error = rel.calibration_error(made.probabilities, made.labels, made.index, 5, draws=2)
    assert error.classwise == pytest.approx(rel.classwise_ece(bins), rel=1e-12)


def test_top_label_ece_by_hand():
    # Sure of UP by .8 forty times and right twenty times; of FLAT by .5 forty times and right thirty times.
    table = np.repeat([[0.1, 0.1, 0.8], [0.25, 0.5, 0.25]], 40, axis=0)
    labels = np.array([2] * 20 + [0] * 20 + [1] * 30 + [2] * 10)
    made = true_forecasts(80, 1, seed=0)
    error = rel.calibration_error(table, labels, made.index, 5, bins=2, draws=2)
    assert error.top_label == pytest.approx((0.3 + 0.25) / 2)


def test_true_forecasts_show_the_error_that_chance_would_and_exceed_its_high_point_rarely():
    found = [
        rel.calibration_error(made.probabilities, made.labels, made.index, 5, draws=100, seed=seed)
        for seed, made in ((seed, true_forecasts(300, 10, seed)) for seed in range(40))
    ]
    for name in ("classwise", "top_label"):
        shown = np.array([getattr(error, name) for error in found])
        chance = np.array([getattr(error, f"{name}_chance") for error in found])
        high = np.array([getattr(error, f"{name}_chance_high") for error in found])
        assert shown.mean() == pytest.approx(chance.mean(), rel=0.12)
        assert (shown > high).mean() <= 0.15  # 5 % of 40, with chance's own scatter


def test_chance_shows_about_02_on_a_year_of_fifty_symbols_and_under_01_on_six_years():
    year, longer = (
        rel.calibration_error(made.probabilities, made.labels, made.index, 5)
        for made in (true_forecasts(252, 50, seed=2), true_forecasts(1500, 50, seed=2))
    )
    assert year.classwise_chance == pytest.approx(0.02, abs=0.005)
    assert longer.classwise_chance == pytest.approx(0.0085, abs=0.0025)
    assert year.classwise_chance < year.classwise_chance_high < 0.05


def test_an_overconfident_model_stands_out_from_chance():
    made = true_forecasts(500, 20, seed=3)
    error = rel.calibration_error(distorted(made.probabilities, 3), made.labels, made.index, 5)
    assert error.classwise > 3 * error.classwise_chance_high
    assert error.top_label > 3 * error.top_label_chance_high


def test_the_same_seed_gives_the_same_figures():
    made = true_forecasts(100, 4, seed=5)
    first, again = (rel.calibration_error(made.probabilities, made.labels, made.index, 5, seed=9) for _ in range(2))
    assert first == again
