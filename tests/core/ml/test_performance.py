"""Accuracy as specified, and the test that tells a dead signal from a noisy one."""

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.performance import Yardstick, signal_test, yardstick
from signals_core.ml.validation import PROBABILITY_COLUMNS
from tests.core.ml.forecasts import distorted, true_forecasts

PRIOR = np.array([0.3, 0.4, 0.3])
HORIZON = 5


def made(dates: int = 300, symbols: int = 20, seed: int = 0, skill: float = 0.2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Calibrated predictions of one model and their outcomes."""
    forecasts = true_forecasts(dates, symbols, seed, skill)
    predictions = pd.DataFrame(forecasts.probabilities, index=forecasts.index, columns=PROBABILITY_COLUMNS)
    outcomes = pd.DataFrame({"label": forecasts.labels}, index=forecasts.index)
    outcomes["label_end"] = forecasts.index.get_level_values("date") + pd.tseries.offsets.BDay(HORIZON)
    return predictions.assign(model_version="v1"), outcomes


def measure(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> Yardstick:
    priors = np.tile(PRIOR, (len(predictions), 1))
    said = predictions[PROBABILITY_COLUMNS].to_numpy()
    found = yardstick(PRIOR, said, priors, outcomes["label"], outcomes["label_end"])
    assert found is not None
    return found


UNIT = {"v1": Yardstick((0.3, 0.4, 0.3), 1.0, 0.0)}


def by_hand(days: int, p: tuple[float, float, float], label: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    index = pd.MultiIndex.from_product([["AAA"], pd.bdate_range("2022-01-03", periods=days)], names=["symbol", "date"])
    said = pd.DataFrame([p] * days, index=index, columns=PROBABILITY_COLUMNS).assign(model_version="v1")
    ends = index.get_level_values("date") + pd.tseries.offsets.BDay(HORIZON)
    return said, pd.DataFrame({"label": label, "label_end": ends}, index=index)


def test_the_statistic_is_page_s_sum_of_deviations_by_hand():
    p = (0.2, 0.4, 0.4)
    said, outcomes = by_hand(11, p, label=0)
    ratio = np.log(np.array(p) / PRIOR)
    expected = float(np.dot(p, ratio))
    deviation = float(np.sqrt(np.dot(p, ratio**2) - expected**2))
    short = (expected - ratio[0]) / deviation
    found = signal_test(said, outcomes, UNIT, slack=0.25, limit=8)
    # Eleven dates are two periods of five, and the first of a third that shows that the second is complete.
    assert (found.periods, found.limit) == (2, 8)
    assert found.statistic == pytest.approx(2 * (short - 0.25))
    assert found.realised_gain == pytest.approx(ratio[0])
    assert found.expected_gain == pytest.approx(expected)
    assert [day for day, _ in found.path] == ["2022-01-14", "2022-01-21"]
    assert [value for _, value in found.path] == pytest.approx([short - 0.25, 2 * (short - 0.25)], abs=1e-4)


def test_a_forecast_that_keeps_its_promise_never_sums_up():
    said, outcomes = by_hand(100, (0.2, 0.4, 0.4), label=2)
    assert signal_test(said, outcomes, UNIT, 0.25, 8).statistic == 0


def test_the_statistic_is_bounded_so_that_a_signal_can_come_back():
    said, outcomes = by_hand(400, (0.2, 0.4, 0.4), label=0)
    assert signal_test(said, outcomes, UNIT, 0.25, 8).statistic == 16


def test_outcomes_that_are_not_known_yet_and_models_without_a_yardstick_do_not_count():
    said, outcomes = by_hand(40, (0.2, 0.4, 0.4), label=0)
    assert signal_test(said, outcomes.iloc[:11], UNIT, 0.25, 8).periods == 2
    assert signal_test(said, outcomes.iloc[:0], UNIT, 0.25, 8) is None
    assert signal_test(said.assign(model_version="unknown"), outcomes, UNIT, 0.25, 8) is None


def test_a_new_version_inherits_a_slow_death_and_begins_anew_after_an_alarm():
    said, outcomes = by_hand(61, (0.2, 0.4, 0.4), label=0)
    both = {**UNIT, "v2": UNIT["v1"]}
    half = said.index.get_level_values("date") >= "2022-02-07"  # after 25 of 60 dates
    handed_over = said.assign(model_version=np.where(half, "v2", "v1"))
    step = signal_test(said.iloc[:11], outcomes.iloc[:11], UNIT, 0.25, 1000).statistic / 2
    inherited = signal_test(handed_over, outcomes, both, 0.25, 1000)
    assert inherited.statistic == pytest.approx(12 * step)
    anew = signal_test(handed_over, outcomes, both, 0.25, 4.5 * step)
    assert anew.statistic == pytest.approx(7 * step)


def test_a_forecast_equal_to_the_prior_promises_nothing():
    said, outcomes = by_hand(40, (0.3, 0.4, 0.3), label=0)
    assert signal_test(said, outcomes, UNIT, 0.25, 8) is None


def test_a_yardstick_makes_honest_deviations_of_unit_spread():
    predictions, outcomes = made(3000, 20)
    own = measure(predictions, outcomes)
    assert 0 < own.spread < 1
    assert -2 * own.spread / np.sqrt(600) < own.bias <= 0
    other, later = made(3000, 20, seed=1)
    assert measure(other, later).spread == pytest.approx(own.spread, rel=0.15)


def test_a_model_overconfident_out_of_sample_is_measured_by_what_it_was():
    predictions, outcomes = made(1500)
    bold = predictions.copy()
    bold[PROBABILITY_COLUMNS] = distorted(predictions[PROBABILITY_COLUMNS].to_numpy(), 2.5)
    own = measure(bold, outcomes)
    assert own.bias < -own.spread / 3
    later, then = made(1500, seed=1)
    later[PROBABILITY_COLUMNS] = distorted(later[PROBABILITY_COLUMNS].to_numpy(), 2.5)
    assert signal_test(later, then, {"v1": own}, 0.25, 8).statistic < 8


def test_too_few_periods_are_no_yardstick():
    predictions, outcomes = made(60)
    said, priors = predictions[PROBABILITY_COLUMNS].to_numpy(), np.tile(PRIOR, (len(predictions), 1))
    assert yardstick(PRIOR, said, priors, outcomes["label"], outcomes["label_end"]) is None


def test_a_later_outcome_changes_no_earlier_statistic():
    predictions, outcomes = made(300)
    own = {"v1": measure(predictions, outcomes)}
    whole = dict(signal_test(predictions, outcomes, own, 0.25, 8).path)
    for day in pd.bdate_range("2000-06-01", periods=12):
        known = outcomes[outcomes["label_end"] <= day]
        for moment, value in signal_test(predictions, known, own, 0.25, 8).path:
            assert moment <= str(day.date())
            assert whole.get(moment, value) == value


def test_accuracy_below_one_half_is_what_a_perfect_forecast_shows():
    predictions, outcomes = made(1000)
    right = predictions[PROBABILITY_COLUMNS].to_numpy().argmax(axis=1) == outcomes["label"]
    daily = right.groupby(level="date").mean().rolling(5).mean().dropna()  # of a hundred predictions each
    assert (daily < 0.5).mean() > 0.8
